"""The commit, packages and machine of a run, for its study.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from study.errors import InputError

PACKAGES = ("kdstudy", "ray", "torch", "torchvision", "optuna", "numpy", "pyarrow", "pandas", "torchmetrics", "cmaes")
"""Packages whose versions are recorded."""

GPU_ANSWER_SECONDS = 30.0
"""Time for nvidia-smi, which takes seconds where it must load the driver for many GPUs."""


def read_commit() -> dict[str, Any]:
    """Return the commit of the running code and whether files differ from it; empty outside a git checkout."""
    if shutil.which("git") is None:
        return {"commit": "", "dirty": False}
    return {"commit": _run_git("rev-parse", "HEAD"), "dirty": bool(_run_git("status", "--porcelain"))}


def _run_git(*words: str) -> str:
    root = str(Path(__file__).parents[2])
    result = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages among PACKAGES."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": read_cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "gpus": list_gpu_names(),
    }


def list_gpu_names() -> list[str]:
    """Return the names of the NVIDIA GPUs that this process may use, as the driver gives them; empty without a driver.

    Raises InputError if the driver does not answer.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi") is None or (visible is not None and not visible.strip()):
        return []
    try:
        result = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False, timeout=GPU_ANSWER_SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        reason = f"within {GPU_ANSWER_SECONDS:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise InputError(
            f"nvidia-smi does not answer ({reason}): restart the driver, or hide the GPUs with CUDA_VISIBLE_DEVICES="
        ) from None
    # a driver that fails answers in sentences, such as "GPU access blocked by the operating system"
    lines = [line for line in result.stdout.decode(errors="replace").splitlines() if re.match(r"GPU \d+:", line)]
    return [line.split(":", 1)[1].split("(")[0].strip() for line in _select_visible(lines, visible)]


def _select_visible(lines: list[str], visible: str | None) -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, by number or start of their UUID; CUDA stops at one unknown."""
    if visible is None:
        return lines
    chosen: list[str] = []
    for name in (item.strip() for item in visible.split(",")):
        if name.isdecimal():
            found = lines[int(name) : int(name) + 1]
        elif name.startswith("MIG-"):
            found = lines[:1]  # a part of some GPU, which the list of GPUs does not name
        else:
            found = [line for line in lines if name and f"(UUID: {name}" in line]
        if not found:
            break
        chosen += found[:1]
    return chosen


def read_cpu_name() -> str:
    """Return the name of this machine's CPU; empty if the system has none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

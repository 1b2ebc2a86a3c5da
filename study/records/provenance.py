"""The commit, packages and machine of a run, for its study.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("kdstudy", "ray", "torch", "torchvision", "optuna", "numpy", "pyarrow", "pandas", "torchmetrics", "cmaes")
"""Packages whose versions are recorded."""


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
        "cpu": _read_cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "gpus": list_gpu_names(),
    }


def list_gpu_names() -> list[str]:
    """Return the names of this machine's NVIDIA GPUs as the driver gives them; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    output = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [line.split(":", 1)[1].split("(")[0].strip() for line in output.splitlines() if line.startswith("GPU")]


def _read_cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

"""Can this machine run studies? A line a check: all is well, this can be lived with, or what to do about it.

Torch is asked in a process of its own: the engine knows nothing of it, and a broken installation must not end the
examination. So is Ray: a process can be given up on. For `python -m study doctor`; hardware.py has the machine.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from study.cli import hardware
from study.cli.hardware import Finding, Level
from study.driver import check_inputs, preparation_lines
from study.errors import InputError
from study.records.study_json import gpu_names
from study.space_file import load_space

TORCH_SECONDS, RAY_SECONDS = 180, 120
"""How long an answer is waited for; a cold disk is slow."""

STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "fails": "red"}

TORCH = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
names = []
for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    torchvision.ops.nms(torch.zeros(1, 4, device=f"cuda:{number}"), torch.zeros(1, device=f"cuda:{number}"), 0.5)
    names.append(torch.cuda.get_device_name(number))
versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "cuda": torch.version.cuda}
print(json.dumps(versions | {"gpus": names}))
"""
"""A pair that does not match fails at nms, and so does a GPU that one of them has no code for."""

RAY = """
import sys
from study.cluster import resources
resources.connect(sys.argv[1] or None)
try:
    nodes = resources.list_nodes()
    assert resources.ray.get(resources.ray.remote(lambda: 42).remote()) == 42
    room = resources.allocate(nodes, float(sys.argv[2]) if sys.argv[2] else None, None, int(sys.argv[3]))
    print(f"{len(nodes)} node, {sum(n.cpus for n in nodes)} CPU, {sum(n.gpus for n in nodes)} GPU; room for {room}")
finally:
    resources.disconnect()
"""


@dataclass(frozen=True)
class Wish:
    """What the machine is to be used for, as the command line says."""

    storage: Path
    space: Path | None = None
    profile: str | None = None
    data_dir: Path | None = None
    gpus_per_worker: float | None = None
    address: str | None = None
    workers_per_trial: int | None = None
    """Without it, the space file's."""


def examine(wish: Wish, console: Console) -> bool:
    """Make every check, and tell each as it is made; False if one fails."""
    levels: list[Level] = []
    for finding in findings(wish):
        levels.append(finding.level)
        console.print(Text.assemble((f"{finding.level:<9}", STYLES[finding.level]), finding.says), soft_wrap=True)
    counts = f"{len(levels)} checks, {levels.count('warning')} with a warning, {levels.count('fails')} failed"
    console.print(f"\n{counts}", soft_wrap=True)
    return "fails" not in levels


def findings(wish: Wish) -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} at {sys.executable}")
    yield packages()
    yield from torch(gpu_names(), wish.gpus_per_worker)
    free, trials = hardware.free_memory(), os.cpu_count() or 1
    yield hardware.cores()
    yield hardware.memory(free, trials)
    if Path("/dev/shm").is_dir():
        yield hardware.shared_memory(free, shutil.disk_usage("/dev/shm").free)
    yield hardware.open_files()
    yield from hardware.disk(wish.storage)
    yield ray(wish.address, wish.gpus_per_worker, wish.workers_per_trial or workers_of(wish))
    if wish.space is not None:
        yield from the_space(wish.space, wish)


def packages() -> Finding:
    """Whether what kdstudy needs is installed, in the versions it needs."""
    try:
        needed = [Requirement(line) for line in importlib.metadata.requires("kdstudy") or []]
    except importlib.metadata.PackageNotFoundError:
        return Finding("fails", "kdstudy is not installed: pip install -e . in its folder")
    found, amiss = [], []
    for package in needed:
        if package.marker is not None and not package.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            amiss.append(f"{package.name} is missing")
            continue
        found.append(f"{package.name} {version}")
        if not package.specifier.contains(version, prereleases=True):
            amiss.append(f"{package.name} is {version}, {package.specifier} is needed")
    if amiss:
        return Finding("fails", f"packages: {'; '.join(amiss)}: pip install -e . in kdstudy's folder brings them")
    return Finding("ok", f"packages: {', '.join(found)}")


def torch(gpus: list[str], gpus_per_worker: float | None) -> Iterator[Finding]:
    """Whether torch and torchvision belong together, and torch can use the GPUs that the driver shows."""
    answer, problem = asked(TORCH, [], TORCH_SECONDS)
    if problem:
        yield Finding("fails", f"torch and torchvision: {problem}: pip install -U torch torchvision, both at once")
        return
    found: dict[str, Any] = json.loads(answer)
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    yield Finding("ok", f"torch {found['torch']} ({build}) and torchvision {found['torchvision']} fit together")
    if found["gpus"]:
        yield Finding("ok", f"torch computes on {len(found['gpus'])} GPU: {', '.join(found['gpus'])}")
    elif not gpus:
        yield Finding("ok", "no GPU, trials run on the CPU")
    else:  # Ray hands out what the driver shows, and a trial that gets a GPU trains on it
        yield Finding(
            "warning" if gpus_per_worker == 0 else "fails",
            f"the driver shows {len(gpus)} GPU ({', '.join(gpus)}) that torch ({build}) cannot use: install a torch "
            "for the driver's CUDA (pytorch.org), or give --gpus-per-worker 0",
        )


def workers_of(wish: Wish) -> int:
    """How many processes train a trial together, as the space file has it; 1 where there is none that can be read."""
    try:
        return load_space(wish.space, wish.profile, wish.data_dir).study.workers_per_trial if wish.space else 1
    except InputError:
        return 1  # told by the_space


def ray(address: str | None, gpus_per_worker: float | None, workers: int) -> Finding:
    """Whether Ray starts, or is there at the address, runs a task, and has room for a trial of so many workers."""
    share = "" if gpus_per_worker is None else str(gpus_per_worker)
    answer, problem = asked(RAY, [address or "", share, str(workers)], RAY_SECONDS)
    where = f"Ray at {address}" if address else "Ray on this machine"
    if not problem:
        return Finding("ok", f"{where} runs a task: {answer}")
    return Finding("fails", f"{where}: {problem}")


def the_space(path: Path, wish: Wish) -> Iterator[Finding]:
    """Whether the study of a space file could start: its data, teacher, room and seeds."""
    from reports.text.summary import warn_of_few_seeds

    try:
        loaded = load_space(path, wish.profile, wish.data_dir)
        study = loaded.study
        profile = f", profile {loaded.profile}" if loaded.profile else ""
        yield Finding("ok", f"{path}{profile}: {study.name}, {len(study.cells)} cells")
        data = check_inputs(study, wish.storage).get("data", {}).get("name", "none")
        yield Finding("ok", f"data: {data}")
        to_prepare = preparation_lines(study.task.list_preparations(wish.storage, study.plan))
        yield Finding("ok", "; ".join(to_prepare) or "nothing to prepare")
    except InputError as error:
        yield Finding("fails", str(error))
        return
    if warning := warn_of_few_seeds(study.budget.seeds, len(study.arms) - 1):
        yield Finding("warning", warning)


def asked(code: str, words: list[str], seconds: float) -> tuple[str, str]:
    """What a Python process of its own prints last, and its problem in a line, if it has one."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {seconds:g} s"
    answer = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0:
        return answer, ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return answer, lines[-1].removeprefix("study.errors.InputError: ") if lines else f"exit code {done.returncode}"

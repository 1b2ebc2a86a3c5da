"""python -m study doctor: checks whether this machine can run studies, one line each, with the way out if it cannot.

Torch and Ray run in processes of their own: a broken installation must not end the checks, and a process that hangs can
be given up. study/cli/hardware.py checks the machine.
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
from typing import Any, Literal

import click
from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from study.cli import hardware
from study.cli.hardware import Finding, Level
from study.cli.options import AUTO, HELP, data_dir_option, gpus_per_worker_option, profile_option, storage_path_option
from study.cli.output import exit_on_errors, format_examples, make_console
from study.cluster.this_machine import count_cpus
from study.errors import InputError
from study.preflight import check_inputs, check_pickling, format_preparations
from study.records.provenance import list_gpu_names
from study.space_file import Space, load_space
from study.storage.dataset import resolve_data_dir
from study.storage.locations import local_path

TORCH_SECONDS, RAY_SECONDS = 180, 120
"""Time limits of the two processes; importing from a cold disk is slow."""

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
"""nms fails if torch and torchvision do not match, or if one of them has no code for the GPU."""

RAY = """
import sys
from study.cluster import connection
from study.cluster.allocation import allocate
connection.connect(sys.argv[1] or None)
try:
    nodes = connection.list_nodes()
    assert connection.ray.get(connection.ray.remote(lambda: 42).remote()) == 42
    trial = allocate(nodes, float(sys.argv[2]) if sys.argv[2] else None, None, int(sys.argv[3]))
    print(f"{len(nodes)} node, {sum(n.cpus for n in nodes)} CPU, {sum(n.gpus for n in nodes)} GPU; room for {trial}")
finally:
    connection.disconnect()
"""


@click.command(context_settings=HELP, epilog=format_examples("doctor", "doctor spaces/lp_cifar.py"))
@click.argument("space", type=click.Path(path_type=Path), required=False)
@profile_option
@data_dir_option
@gpus_per_worker_option("The value that run will get.")
@click.option("--workers-per-trial", type=click.IntRange(min=1), help="The value that run will get.")
@click.option("--address", help="The Ray cluster that will be used; this machine by default.")
@storage_path_option("Where the studies lie: a folder or s3://BUCKET/PREFIX.")
def main(
    space: Path | None,
    profile: str | None,
    data_dir: str | None,
    gpus_per_worker: float | Literal["auto"] | None,
    workers_per_trial: int | None,
    address: str | None,
    storage_path: str,
) -> None:
    """Check whether this machine can run studies.

    With SPACE, check its study too; nothing is trained. Exit code 1 if a check fails; a warning does not prevent a run.
    """
    with exit_on_errors():
        storage, data = local_path(storage_path), resolve_data_dir(data_dir)
        share = None if gpus_per_worker == AUTO else gpus_per_worker  # auto gives at most 1, the default
        options = DoctorOptions(storage, space, profile, data, share, address, workers_per_trial)
        healthy = run_checks(options, make_console())
    sys.exit(0 if healthy else 1)


@dataclass(frozen=True)
class DoctorOptions:
    """The options of doctor: what the machine is to run."""

    storage: Path
    space: Path | None = None
    profile: str | None = None
    data_dir: Path | None = None
    gpus_per_worker: float | None = None
    address: str | None = None
    workers_per_trial: int | None = None
    """None takes the space file's."""


def run_checks(options: DoctorOptions, console: Console) -> bool:
    """Run every check and print its result; return whether none fails."""
    levels: list[Level] = []
    for finding in run_all_checks(options):
        levels.append(finding.level)
        console.print(Text.assemble((f"{finding.level:<9}", STYLES[finding.level]), finding.message), soft_wrap=True)
    counts = f"{len(levels)} checks, {levels.count('warning')} with a warning, {levels.count('fails')} failed"
    console.print(f"\n{counts}", soft_wrap=True)
    return "fails" not in levels


def run_all_checks(options: DoctorOptions) -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} at {sys.executable}")
    yield check_packages()
    try:
        yield from check_torch(list_gpu_names(), options.gpus_per_worker)
    except InputError as error:
        yield Finding("fails", str(error))
    free, trials = hardware.read_free_memory(), count_cpus()
    yield hardware.check_cores()
    yield hardware.check_memory(free, trials)
    if Path("/dev/shm").is_dir():
        yield hardware.check_shared_memory(free, shutil.disk_usage("/dev/shm").free)
    yield hardware.check_open_files()
    yield from hardware.check_storage(options.storage)
    if options.address is None:
        yield from hardware.check_ray_start()
    try:
        space = load_space(options.space, options.profile, options.data_dir) if options.space else None
        problem = ""
    except InputError as error:
        space, problem = None, str(error)
    workers = options.workers_per_trial or (space.study.workers_per_trial if space else 1)
    yield check_ray(options.address, options.gpus_per_worker, workers)
    if problem:
        yield Finding("fails", problem)
    if space is not None:
        yield from check_space_file(space, options.storage)


def check_packages() -> Finding:
    """Check that the packages that kdstudy requires are installed, in the required versions."""
    try:
        required = [Requirement(line) for line in importlib.metadata.requires("kdstudy") or []]
    except importlib.metadata.PackageNotFoundError:
        return Finding("fails", "kdstudy is not installed: pip install -e . in its folder")
    found, problems = [], []
    for package in required:
        if package.marker is not None and not package.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package.name} is missing")
            continue
        found.append(f"{package.name} {version}")
        if not package.specifier.contains(version, prereleases=True):
            problems.append(f"{package.name} is {version}, {package.specifier} is needed")
    if problems:
        return Finding("fails", f"packages: {'; '.join(problems)}: pip install -e . in kdstudy's folder brings them")
    return Finding("ok", f"packages: {', '.join(found)}")


def check_torch(gpus: list[str], gpus_per_worker: float | None) -> Iterator[Finding]:
    """Check that torch and torchvision fit together, and that torch can use the GPUs that the driver shows."""
    answer, problem = run_python(TORCH, [], TORCH_SECONDS)
    if problem:
        yield Finding("fails", f"torch and torchvision: {problem}: pip install -U torch torchvision, both at once")
        return
    found: dict[str, Any] = json.loads(answer)
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    yield Finding("ok", f"torch {found['torch']} ({build}) and torchvision {found['torchvision']} fit together")
    if found["gpus"]:
        yield Finding("ok", f"torch computes on {len(found['gpus'])} GPU: {', '.join(found['gpus'])}")
    elif not gpus:
        is_broken = shutil.which("nvidia-smi") is not None and os.environ.get("CUDA_VISIBLE_DEVICES") is None
        cause = ": nvidia-smi lists none" if is_broken else ""
        yield Finding("warning" if is_broken else "ok", f"no GPU, trials run on the CPU{cause}")
    else:  # Ray assigns the GPUs that the driver shows, and a trial that gets one trains on it
        yield Finding(
            "warning" if gpus_per_worker == 0 else "fails",
            f"the driver shows {len(gpus)} GPU ({', '.join(gpus)}) that torch ({build}) cannot use: install a torch "
            "for the driver's CUDA (pytorch.org), or give --gpus-per-worker 0",
        )


def check_ray(address: str | None, gpus_per_worker: float | None, workers: int) -> Finding:
    """Check that Ray starts, or answers at the address, runs a task, and has room for a trial of this many workers."""
    share = "" if gpus_per_worker is None else str(gpus_per_worker)
    answer, problem = run_python(RAY, [address or "", share, str(workers)], RAY_SECONDS)
    where = f"Ray at {address}" if address else "Ray on this machine"
    if not problem:
        return Finding("ok", f"{where} runs a task: {answer}")
    return Finding("fails", f"{where}: {problem}")


def check_space_file(space: Space, storage: Path) -> Iterator[Finding]:
    """Check that the study of a space file can start: its data, its teacher, its seeds."""
    from reports.text.few_seeds import warn_of_few_seeds
    from study.execution.train_run import run_in_train_context

    study, profile = space.study, f", profile {space.profile}" if space.profile else ""
    yield Finding("ok", f"{space.path}{profile}: {study.name}, {len(study.cells)} cells")
    try:
        inputs = run_in_train_context(lambda: check_inputs(study, storage))
        yield Finding("ok", f"data: {inputs.get('data', {}).get('name', 'none')}")
        check_pickling(study, space.module)
        to_prepare = format_preparations(study.task.list_preparations(storage, study.plan))
        yield Finding("ok", "; ".join(to_prepare) or "nothing to prepare")
    except InputError as error:
        yield Finding("fails", str(error))
        return
    if warning := warn_of_few_seeds(study.budget.seeds, study.max_tests):
        yield Finding("warning", warning)


def run_python(code: str, words: list[str], seconds: float) -> tuple[str, str]:
    """Run code in a new Python process; return the last line that it prints, and its problem in one line, if any."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer in {seconds:g} s"
    answer = (process.stdout.strip().splitlines() or [""])[-1]
    if process.returncode == 0:
        return answer, ""
    lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
    return answer, lines[-1].removeprefix("study.errors.InputError: ") if lines else f"exit code {process.returncode}"

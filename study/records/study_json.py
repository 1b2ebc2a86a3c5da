"""A study's folder: who may write in it, whether it is the same study, and study.json."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from study.code_version import SPACE_FILE
from study.errors import InputError
from study.identity import SOURCE_CHANGE, describe, differences
from study.records.segments import SCHEMA_VERSION, RecordsError, read_study
from study.space.domains import find_domains
from study.space_file import Space
from study.study import Study
from study.task import Metric

LOCK_ATTEMPTS = 4
MOST_NAMED = 4
"""Changed files up to which a message names all: it is one line."""
PROBE_BYTES = 2**16
PACKAGES = ("kdstudy", "ray", "torch", "torchvision", "optuna", "numpy", "pyarrow", "pandas", "torchmetrics", "cmaes")


def check_writable(storage: Path) -> None:
    """Raises InputError if nothing can be written below `storage`."""
    probe = storage / f".writable-{platform.node()}-{os.getpid()}"
    try:
        storage.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(PROBE_BYTES))  # an empty file fits on a full disk
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"storage path {storage} cannot be written ({error.strerror}): give another with --storage-path"
        ) from None


def beside(storage: Path, name: str) -> str:
    """The first of name, name-2, name-3, … that is no folder yet."""
    number = 2
    fresh = name
    while (storage / fresh).exists():
        fresh, number = f"{name}-{number}", number + 1
    return fresh


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only driver of this study. The system lifts the lock when a process ends, however it ends.

    Raises InputError if another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise InputError(f"study folder {folder} cannot be used ({error.strerror}): give another --name") from None
    with lock as file:
        if not _lock(file):
            file.seek(0)
            raise InputError(
                f"{folder} is being run by another process ({file.read().strip() or 'unknown'}): "
                "wait for it, or give this study another --name"
            )
        file.truncate(0)
        try:
            file.write(f"{platform.node()}:{os.getpid()}")
            file.flush()
        except OSError as error:
            raise InputError(f"study folder {folder} cannot be written ({error.strerror})") from None
        yield


def _lock(file: IO[str]) -> bool:
    for _ in range(LOCK_ATTEMPTS):  # who lists studies holds their locks for moments
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def request_stop(folder: Path) -> None:
    """Ask whoever runs this study, from whichever machine, to interrupt it."""
    (folder / "stop").touch()


def stop_requested(folder: Path) -> bool:
    return (folder / "stop").exists()


def withdraw_stop(folder: Path) -> None:
    """What was asked of an earlier run is not asked of this one."""
    (folder / "stop").unlink(missing_ok=True)


def check_same(folder: Path, study: Study, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """study.json of an earlier run in this folder, or None.

    Whether the code is the same is left to `check_code`.
    Raises InputError with the differences if that was another study: other settings, data or teacher; and if it was
    written by a version that described studies in another way.
    """
    if not (folder / "study.json").is_file():
        return None
    earlier = read_study(folder)
    if not {"study", "inputs", "provenance"} <= earlier.keys():
        raise RecordsError(f"{folder / 'study.json'} is damaged: restore it from a copy, or start anew with --fresh")
    if earlier.get("schema", 0) < SCHEMA_VERSION:
        raise InputError(_too_old(folder, earlier))
    if not earlier.get("code"):
        raise RecordsError(f"{folder / 'study.json'} is damaged, it names no code: restore it from a copy")
    was = {"workers_per_trial": 1} | earlier["study"]  # there was no choice at first
    changes = [change for change in differences(was, describe(study)) if not _is_allowed(change)]
    changes += differences(fingerprints(earlier["inputs"]), fingerprints(inputs))
    if changes:
        shown = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
        raise InputError(
            f"{folder} holds another study of this name ({shown}): "
            "undo the change, give a new --name, or start beside it with --fresh"
        )
    return earlier


def _too_old(folder: Path, earlier: Mapping[str, Any]) -> str:
    version = earlier["provenance"].get("versions", {}).get("kdstudy") or "an earlier kdstudy"
    commit = str(earlier["provenance"].get("commit") or "")[:12]
    by = f"{version}, commit {commit}" if commit else version
    return (
        f"{folder} was written by kdstudy {by} (schema {earlier.get('schema')}): this version reports it and cannot go "
        "on with it; go on with that version, give a new --name, or start beside it with --fresh"
    )


def check_code(folder: Path, earlier: Mapping[str, Any], study: Study, space: Space, allowed: bool) -> str:
    """Compare the code with that of the study's last run; returns what changed if that is allowed, empty if nothing.

    Raises InputError naming what changed if it is not allowed: old and new trials would be averaged.
    """
    last = runs_of(earlier)[-1].get("code")
    changed = space.code.changes(earlier["code"].get(last, {})) if last != space.code.digest else []
    if not changed:  # a class from elsewhere may have changed that is in none of these files
        changed = [change.split(":")[0] for change in differences(earlier["study"], describe(study))
                   if SOURCE_CHANGE.search(change)]  # fmt: skip
    named = _listed([space.path.name if name == SPACE_FILE else name for name in changed])
    if changed and not allowed:
        raise InputError(
            f"{named} changed since the last run of {folder}: undo the change, start beside it with --fresh or a new "
            "--name, or go on with --allow-code-change, which judges no comparison of old with new trials"
        )
    return named


def _listed(names: list[str]) -> str:
    """ "a.py, b.py and 3 more files"."""
    shown = names if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    return ", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 else "".join(shown)


def _is_allowed(change: str) -> bool:
    """Whether a difference only asks for more of the same, which undoes nothing, or is left to `check_code`."""
    if SOURCE_CHANGE.search(change):
        return True
    match = re.fullmatch(r"budget\.(trials|seeds): (\d+) → (\d+)", change)
    return match is not None and int(match[3]) > int(match[2])


def runs_of(earlier: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The runs of a study so far, as its study.json lists them."""
    return list(earlier["provenance"].get("runs", [])) if earlier else []


def document(
    study: Study,
    space: Space,
    inputs: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    command: str,
    results_known: bool = False,
) -> dict[str, Any]:
    """What study.json holds from the first moment; see docs/records.md."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    budget = dataclasses.asdict(study.budget)
    return {
        "schema": SCHEMA_VERSION,
        "name": study.name,
        "question": study.question,
        "finished": False,
        "metric": study.metric,
        "test_metric": study.test_metric,
        "direction": study.direction,
        "objectives": list(study.objectives),
        "metrics": {name: describe_metric(metric) for name, metric in study.task.metrics.items()},
        "prediction": study.task.prediction,
        "confirm_on": study.confirm_on,
        "protocol": study.protocol,
        "assumptions": list(study.assumptions),
        "seed": study.seed,
        "budget": budget,
        "cells": [_cell(study, cell.student.name, cell.arm.name, cell.name) for cell in study.cells],
        "inputs": dict(inputs),
        "teacher": earlier["teacher"] if earlier else None,
        "students": earlier["students"] if earlier else {},
        "study": describe(study),
        "code": {**(earlier["code"] if earlier else {}), space.code.digest: dict(space.code.files)},
        "provenance": {
            **commit(),
            "versions": versions(),
            "machine": machine(),
            "command": command,
            "cwd": str(Path.cwd()),
            "created": earlier["provenance"]["created"] if earlier else now,
            "updated": now,
            "runs": [
                *runs_of(earlier),
                {
                    "started": now,
                    "command": command,
                    "budget": budget,
                    "results_known": results_known,
                    "code": space.code.digest,
                }
                | commit(),
            ],
        },
        "space": {"path": str(space.path), "profile": space.profile, "source": space.source},
    }


def describe_metric(metric: Metric) -> dict[str, Any]:
    """Return a metric as study.json holds it, without its name."""
    return {name: value for name, value in dataclasses.asdict(metric).items() if name != "name"}


def fingerprints(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the inputs, by name: it enters every trial's configuration."""
    return {name: item["fingerprint"] for name, item in inputs.items()}


def commit() -> dict[str, Any]:
    """The commit of the code that runs, and whether it was changed since; empty outside a checkout."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    if shutil.which("git") is None:
        return {"commit": "", "dirty": False}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}


def versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "gpus": gpu_names(),
    }


def gpu_names() -> list[str]:
    """This machine's NVIDIA GPUs, as its driver names them; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [line.split(":", 1)[1].split("(")[0].strip() for line in listed.splitlines() if line.startswith("GPU")]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def _cell(study: Study, student: str, arm_name: str, name: str) -> dict[str, Any]:
    arm = study.find_arm(arm_name)
    versus = study.find_comparison(arm)
    return {
        "cell": name,
        "student": student,
        "arm": arm_name,
        "baseline": arm.baseline,
        "versus": versus.name if versus else None,
        "searched": arm.is_searched,
        "trials": study.count_trials(arm),
        "published": arm.published,
        "parameters": [name for name, _ in find_domains(arm.loss)],
    }

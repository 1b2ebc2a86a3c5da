"""study.json: the description of a study and of its runs, and the check that a folder holds the same study."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.arm import Cell
from study.atomic import atomic_write
from study.code_version import SPACE_FILE
from study.errors import InputError
from study.identity import SOURCE_CHANGE, describe, find_differences
from study.records.parquet_table import RecordsError
from study.records.paths import StudyPaths
from study.records.provenance import describe_machine, read_commit, read_versions
from study.space.domains import find_domains
from study.space_file import Space
from study.study import Study
from study.task import Metric

SCHEMA_VERSION = 2
"""Since 2 a class is described by its public name, and runs and rows name the version of the code."""

MAX_NAMED_FILES = 4
MAX_NAMED_CHANGES = 5
"""Changes named in one message; further ones are counted."""


def write_study(folder: Path, study: Mapping[str, Any]) -> None:
    """Write study.json in one step.

    Raises RecordsError if it cannot be written.
    """
    path = StudyPaths(folder).study_json
    text = json.dumps(study, indent=1, ensure_ascii=False)
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordsError(
            f"{path} cannot be written ({error.strerror or error}): free disk space, then run the same command again"
        ) from None


def read_study(folder: Path) -> dict[str, Any]:
    """Return study.json of a study's folder.

    Raises RecordsError if there is none, if it is no JSON, or if its schema is newer than this version knows.
    """
    path = StudyPaths(folder).study_json
    if not path.is_file():
        raise RecordsError(f"{folder} is no study, it has no study.json: give the folder of a study")
    try:
        study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordsError(f"{path} is damaged ({error}): restore it from a copy") from None
    if not isinstance(study, dict):
        raise RecordsError(f"{path} is damaged, it does not describe a study: restore it from a copy")
    if study.get("schema", 0) > SCHEMA_VERSION:
        raise RecordsError(
            f"{path} has schema {study['schema']}; this version reads up to {SCHEMA_VERSION}: upgrade kdstudy"
        )
    return study


# -- is it the same study? ---------------------------------------------------------------------------------------------


def read_same_study(folder: Path, study: Study, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return study.json of an earlier run in this folder; None if there was none. `check_code` compares the code.

    Raises InputError with the differences if it describes another study (other settings, data or teacher), or if its
    schema is older; RecordsError if it is damaged.
    """
    path = StudyPaths(folder).study_json
    if not path.is_file():
        return None
    earlier = read_study(folder)
    if not {"study", "inputs", "provenance"} <= earlier.keys():
        raise RecordsError(f"{path} is damaged: restore it from a copy, or start a new study with --fresh")
    if earlier.get("schema", 0) < SCHEMA_VERSION:
        raise InputError(_format_old_schema(folder, earlier))
    if not earlier.get("code"):
        raise RecordsError(f"{path} is damaged, it names no code: restore it from a copy")
    before = {"workers_per_trial": 1} | earlier["study"]  # the field is younger than the schema
    changes = [change for change in find_differences(before, describe(study)) if not _is_allowed(change, study)]
    changes += find_differences(collect_fingerprints(earlier["inputs"]), collect_fingerprints(inputs))
    if changes:
        more = len(changes) - MAX_NAMED_CHANGES
        named = "; ".join(changes[:MAX_NAMED_CHANGES]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{folder} holds another study of this name ({named}): "
            "undo the change, give a new --name, or start a new study with --fresh"
        )
    return earlier


def _format_old_schema(folder: Path, earlier: Mapping[str, Any]) -> str:
    version = earlier["provenance"].get("versions", {}).get("kdstudy") or "an earlier kdstudy"
    commit = str(earlier["provenance"].get("commit") or "")[:12]
    writer = f"{version}, commit {commit}" if commit else version
    return (
        f"{folder} was written by kdstudy {writer} (schema {earlier.get('schema')}): this version reports it but "
        "cannot continue it; continue it with that version, give a new --name, or start a new study with --fresh"
    )


def _is_allowed(change: str, study: Study) -> bool:
    """Return whether a difference only extends the study, or is one of code, which `check_code` judges."""
    if SOURCE_CHANGE.search(change):
        return True
    match = re.fullmatch(r"budget\.(trials|seeds): (\d+) → (\d+)", change)
    if match is None or int(match[3]) <= int(match[2]):
        return False
    searches = [arm.search for arm in study.arms if arm.search]
    # more members would be compared with others whose checkpoints are gone
    return match[1] == "seeds" or all(one.count_members(int(match[2])) == one.population for one in searches)


def check_code(folder: Path, earlier: Mapping[str, Any], study: Study, space: Space, allowed: bool) -> str:
    """Compare the code with that of the study's last run; return the names of changed files if that is allowed.

    Raises InputError naming what changed if it is not allowed, since old and new trials would be averaged.
    """
    last = list_runs(earlier)[-1].get("code")
    changed = space.code.list_changes(earlier["code"].get(last, {})) if last != space.code.digest else []
    if not changed:  # a class from another package may have changed, which is in none of these files
        changes = find_differences(earlier["study"], describe(study))
        changed = [change.split(":")[0] for change in changes if SOURCE_CHANGE.search(change)]
    names = _join_names([space.path.name if name == SPACE_FILE else name for name in changed])
    if changed and not allowed:
        raise InputError(
            f"{names} changed since the last run of {folder}: undo the change, start a new study with --fresh or a new "
            "--name, or continue with --allow-code-change, which judges no comparison of old with new trials"
        )
    return names


def _join_names(names: list[str]) -> str:
    """Return "a.py, b.py and 3 more files"."""
    if len(names) > MAX_NAMED_FILES:
        named = MAX_NAMED_FILES - 1
        names = [*names[:named], f"{len(names) - named} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


# -- its content -------------------------------------------------------------------------------------------------------


def build_study_json(
    study: Study,
    space: Space,
    inputs: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    command: str,
    results_known: bool = False,
) -> dict[str, Any]:
    """Return study.json as it is written when a run starts; docs/records.md explains each key."""
    now = format_now()
    budget, commit = dataclasses.asdict(study.budget), read_commit()
    run = {
        "started": now,
        "command": command,
        "budget": budget,
        "results_known": results_known,
        "code": space.code.digest,
        **commit,
    }
    return {
        "schema": SCHEMA_VERSION,
        "name": study.name,
        "question": study.question,
        "finished": False,
        "metric": study.metric,
        "test_metric": study.test_metric,
        "direction": study.direction,
        "objectives": list(study.objectives),
        "constraints": dict(study.constraints or {}),
        "metrics": {name: describe_metric(metric) for name, metric in study.metrics.items()},
        "prediction": study.task.prediction,
        "confirm_on": study.confirm_on,
        "test": study.test,
        "protocol": study.protocol,
        "assumptions": list(study.assumptions),
        "seed": study.seed,
        "budget": budget,
        "cells": [_describe_cell(study, cell) for cell in study.cells],
        "net_comparisons": [dataclasses.asdict(one) for one in study.net_comparisons],
        "inputs": dict(inputs),
        "teacher": earlier["teacher"] if earlier else None,
        "students": earlier["students"] if earlier else {},
        "study": describe(study),
        "code": {**(earlier["code"] if earlier else {}), space.code.digest: dict(space.code.files)},
        "provenance": {
            **commit,
            "versions": read_versions(),
            "machine": describe_machine(),
            "command": command,
            "cwd": str(Path.cwd()),
            "created": earlier["provenance"]["created"] if earlier else now,
            "updated": now,
            "runs": [*list_runs(earlier), run],
        },
        "space": {"path": str(space.path), "profile": space.profile, "source": space.source},
    }


def format_now() -> str:
    """Return the present time as study.json has it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def list_runs(earlier: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the runs that study.json lists, the first one first."""
    return list(earlier["provenance"].get("runs", [])) if earlier else []


def describe_metric(metric: Metric) -> dict[str, Any]:
    """Return a metric as study.json holds it, without its name."""
    return {name: value for name, value in dataclasses.asdict(metric).items() if name != "name"}


def collect_fingerprints(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprints of the inputs by name, which enter every trial's configuration."""
    return {name: item["fingerprint"] for name, item in inputs.items()}


def _describe_cell(study: Study, cell: Cell) -> dict[str, Any]:
    arm = cell.arm
    return {
        "cell": cell.name,
        "student": cell.student.name,
        "arm": arm.name,
        "baseline": arm.baseline,
        "versus": [other.name for other in study.find_comparisons(arm)],
        "margin": arm.margin,
        "searched": cell.is_searched,
        "trials": study.count_trials(cell),
        "population": study.count_search_runs(cell) if arm.search else None,
        "front": study.front_size if cell.is_searched else 1,
        "points": study.count_confirm_points(cell),
        "published": arm.published,
        "parameters": [name for name, _ in find_domains(cell.space)],
    }

"""study.json: the description of a study and of its runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.arm import Cell
from study.atomic import atomic_write
from study.identity import describe
from study.records.parquet_table import RecordsError
from study.records.paths import StudyPaths
from study.records.provenance import describe_machine, read_commit, read_versions
from study.space.domains import find_domains
from study.space_file import Space
from study.study import Study
from study.task import Metric

SCHEMA_VERSION = 2
"""Since 2 a class is described by its public name, and runs and rows name the version of the code."""


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

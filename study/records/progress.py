"""Progress of a study: its trials and their epochs, read from its records also while a driver writes.

Only the columns that `list` and `show` need are read; docs/records.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from study.records.columns import EPOCH_COLUMNS, TRIAL_COLUMNS
from study.records.parquet_table import RecordsError, read_parquet_table
from study.records.paths import StudyPaths
from study.records.study_json import read_study
from study.trial import TrialState

REQUIRED_KEYS = {"name": str, "question": str, "metric": str, "test_metric": str, "metrics": dict, "budget": dict,
                 "cells": list, "provenance": dict, "space": dict}  # fmt: skip
"""Keys of study.json that `list` and `show` read, with their types."""

UNSHOWN_COLUMNS = {"student", "arm", "seed", "config", "seconds", "device", "cpus", "code", "member", "start_epoch",
                   "parent"}  # fmt: skip
"""Columns of trials that neither `list` nor `show` reads: fewer are faster."""

Slot = tuple[str, str, int, int]
"""Cell, phase, number and point of a trial."""


def read_shown_study(folder: Path) -> dict[str, Any]:
    """Return study.json. Raises RecordsError if it lacks anything that `list` and `show` read."""
    path = StudyPaths(folder).study_json
    try:
        study = read_study(folder)
    except OSError as error:
        raise RecordsError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    missing = [name for name, kind in REQUIRED_KEYS.items() if not isinstance(study.get(name), kind)]
    try:
        missing or count_planned_trials(study)
    except (KeyError, TypeError) as error:
        missing = [f"a part of its budget or cells ({error})"]
    if missing:
        raise RecordsError(f"{path} is damaged, it lacks {', '.join(missing)}: restore it from a copy")
    return study


def read_trial_rows(folder: Path, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per trial that is not superseded, with the columns that `list` and `show` need.

    Raises RecordsError naming a file that cannot be read.
    """
    columns = [(name, kind) for name, kind in TRIAL_COLUMNS if name not in UNSHOWN_COLUMNS]
    names = (study["metric"], study["test_metric"], *(study.get("objectives") or ()))
    scores = dict.fromkeys(names, pa.float64())
    schema = pa.schema([*columns, *scores.items()])
    return [row for row in read_last_trials(folder, schema) if row["state"] != TrialState.SUPERSEDED]


def read_last_trials(folder: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the last row of each trial of a study's folder, also while a run writes.

    Raises RecordsError naming the first file that cannot be read.
    """
    rows = read_parquet_table(StudyPaths(folder).trials, schema).to_pylist()
    return list({row["trial_id"]: row for row in rows}.values())


def read_epoch_totals(folder: Path) -> tuple[list[dict[str, Any]], list[datetime]]:
    """Return `epochs`, `last_epoch` and `seconds` of each trial, and the times of recording, to the second.

    Computed by Arrow: hundreds of thousands of epochs are too many for rows of Python.
    Raises RecordsError naming a file that cannot be read.
    """
    names = ("trial_id", "epoch", "seconds", "recorded")
    rows = read_parquet_table(
        StudyPaths(folder).epochs, pa.schema([(name, dict(EPOCH_COLUMNS)[name]) for name in names])
    )
    # with threads, "last" would have no order, and sums would differ in their last digit from call to call
    epochs = rows.group_by(["trial_id", "epoch"], use_threads=False)
    last = epochs.aggregate([("seconds", "last"), ("recorded", "last")])
    totals = last.group_by("trial_id", use_threads=False).aggregate(
        [("epoch", "count"), ("epoch", "max"), ("seconds_last", "sum")]
    )
    times = last["recorded_last"].cast(pa.timestamp("s", tz="UTC"), safe=False).unique()
    return totals.rename_columns(["trial_id", "epochs", "last_epoch", "seconds"]).to_pylist(), times.to_pylist()


def group_by_slot(trials: Iterable[Mapping[str, Any]]) -> dict[Slot, Mapping[str, Any]]:
    """Return search and confirm trials by cell, phase, number and point; one repeated counts as its last trial."""
    counted = (row for row in trials if row["phase"] != "prepare")
    return {(row["cell"], row["phase"], row["number"], row.get("point") or 0): row for row in counted}


def count_failed(trials: Iterable[Mapping[str, Any]]) -> int:
    """Return how many search and confirm trials failed."""
    return sum(row["state"] == TrialState.FAILED for row in group_by_slot(trials).values())


def count_planned_trials(study: Mapping[str, Any], trials: Sequence[Mapping[str, Any]] = ()) -> int:
    """Return the number of search and confirm trials of a study, given those that have started."""
    confirms: dict[str, list[Mapping[str, Any]]] = {cell["cell"]: [] for cell in study["cells"]}
    for row in trials:
        if row["phase"] == "confirm" and row["cell"] in confirms:
            confirms[row["cell"]].append(row)
    return sum(
        count_cell_searches(study, cell) + count_cell_confirms(study, cell, confirms[cell["cell"]])
        for cell in study["cells"]
    )


def count_cell_confirms(study: Mapping[str, Any], cell: Mapping[str, Any], started: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of confirm trials of a cell, all seeds of each point, given those that have started.

    How many points a front has is known once a second seed starts, after the first of every point; until then the
    largest possible number counts.
    """
    is_known = study.get("finished") or any(row["number"] for row in started)
    points = 1 + max((row.get("point") or 0 for row in started), default=0) if is_known else cell.get("points", 1)
    return int(points * study["budget"]["seeds"])


def count_cell_searches(study: Mapping[str, Any], cell: Mapping[str, Any]) -> int:
    """Return the number of search trials of a cell; older files give the budget's, of which a grid may use fewer."""
    return int(cell.get("trials", study["budget"]["trials"] if cell["searched"] else 0))

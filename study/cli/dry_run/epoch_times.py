"""The duration of an epoch: as measured in recorded rows of this study or a similar one, or as the user gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from study.identity import get_public_name
from study.records.columns import TRIAL_COLUMNS
from study.records.parquet_table import RecordsError
from study.records.paths import STUDY_JSON
from study.records.progress import read_last_trials
from study.records.study_json import collect_fingerprints, read_study
from study.study import Study
from study.trial import Trial


@dataclass(frozen=True)
class EpochTimes:
    """Mean seconds per epoch by key, from a cell or step (`_list_keys`) to all trials together, the key ()."""

    seconds: Mapping[tuple[str, ...], float]
    source: str
    """Where the times come from, for the user."""

    def find_seconds(self, trial: Trial) -> float:
        keys = _list_keys(trial.phase, trial.cell, trial.student)
        return next(self.seconds[key] for key in keys if key in self.seconds)


def _list_keys(phase: str, cell: str, student: str) -> list[tuple[str, ...]]:
    """Return the keys whose mean to use, most similar first; steps of one kind share the first word of their name."""
    kind, family = ("prepare", cell.split()[0]) if phase == "prepare" else ("train", student)
    return [(kind, phase, cell), (kind, "", cell), (kind, "family", family), (kind,), ()]


def assume_epoch_seconds(seconds: float) -> EpochTimes:
    """Return the same duration for all epochs, as given by the user."""
    return EpochTimes({(): seconds}, "as given")


def read_epoch_times(study: Study, inputs: Mapping[str, Any], storage: Path, gpus: float) -> EpochTimes | None:
    """Return the times of this study's rows, or else of the latest study with the same task, data and students.

    Only trials on the same kind of device count. Returns None if there are none.
    """
    paths = sorted(
        storage.glob(f"*/{STUDY_JSON}"), key=lambda path: (path.parent.name != study.name, -path.stat().st_mtime)
    )
    for folder in (path.parent for path in paths):
        try:
            is_similar = _is_similar(read_study(folder), study, inputs)
            rows = _read_trials(folder, "cuda" if gpus else "cpu") if is_similar else []
        except RecordsError:
            continue  # damage to another study does not concern this one
        if any(row["phase"] != "prepare" for row in rows):
            return EpochTimes(_average(rows), f"measured in {storage.name}/{folder.name}")
    return None


def _is_similar(other: Mapping[str, Any], study: Study, inputs: Mapping[str, Any]) -> bool:
    if not {"study", "inputs", "cells"} <= other.keys():
        return False
    students = {cell["student"] for cell in other["cells"]}
    return bool(
        other["study"]["task"]["is"] == get_public_name(type(study.task))
        and other["study"].get("workers_per_trial", 1) == study.workers_per_trial
        and collect_fingerprints(other["inputs"]).get("data") == collect_fingerprints(inputs).get("data")
        and all(student.name in students for student in study.students)
    )


def _read_trials(folder: Path, device: str) -> list[Mapping[str, Any]]:
    """Return the last rows of trials that have trained an epoch on this kind of device."""
    rows = read_last_trials(folder, pa.schema(TRIAL_COLUMNS))
    return [row for row in rows if row["epochs_done"] and row["device"] in (device, None)]


def _average(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], float]:
    seconds: dict[tuple[str, ...], float] = {}
    epochs: dict[tuple[str, ...], int] = {}
    for row in rows:
        for key in _list_keys(row["phase"], row["cell"], row["student"]):
            seconds[key] = seconds.get(key, 0.0) + row["seconds"]
            epochs[key] = epochs.get(key, 0) + row["epochs_done"]
    return {key: seconds[key] / epochs[key] for key in seconds}

"""How long an epoch takes: measured in rows on record, of this study or of one like it, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from study.identity import get_public_name
from study.records.segments import TRIAL_COLUMNS, RecordsError, read_segments
from study.records.study_json import collect_fingerprints, read_study
from study.study import Study
from study.trial import Trial


@dataclass(frozen=True)
class EpochTimes:
    """Mean seconds per epoch, for cells, steps and students of which there are figures and for all others together."""

    seconds: Mapping[tuple[str, ...], float]
    source: str

    def seconds_of(self, trial: Trial) -> float:
        keys = _from_close_to_far(trial.phase, trial.cell, trial.student)
        return next(self.seconds[key] for key in keys if key in self.seconds)


def _from_close_to_far(phase: str, cell: str, student: str) -> list[tuple[str, ...]]:
    """Whose mean to take, the first there is; steps of one kind share their name's first word."""
    kind, family = ("prepare", cell.split()[0]) if phase == "prepare" else ("train", student)
    return [(kind, phase, cell), (kind, "", cell), (kind, "family", family), (kind,), ()]


def assume_epoch_seconds(seconds: float) -> EpochTimes:
    """One figure for all epochs, as the user gives it."""
    return EpochTimes({(): seconds}, "as given")


def read_epoch_times(study: Study, inputs: Mapping[str, Any], storage: Path, gpus: float) -> EpochTimes | None:
    """What epochs took in this study's own rows, else in the last study of the same task, data and students.

    Only trials on the same kind of device count. None if there are none.
    """
    paths = sorted(
        storage.glob("*/study.json"), key=lambda path: (path.parent.name != study.name, -path.stat().st_mtime)
    )
    for folder in (path.parent for path in paths):
        try:
            rows = _trials(folder, "cuda" if gpus else "cpu") if _alike(read_study(folder), study, inputs) else []
        except RecordsError:
            continue  # another study's damage is none of this one's business
        if any(row["phase"] != "prepare" for row in rows):
            return EpochTimes(_means(rows), f"measured in {storage.name}/{folder.name}")
    return None


def _alike(other: Mapping[str, Any], study: Study, inputs: Mapping[str, Any]) -> bool:
    if not {"study", "inputs", "cells"} <= other.keys():
        return False
    students = {cell["student"] for cell in other["cells"]}
    return bool(
        other["study"]["task"]["is"] == get_public_name(type(study.task))
        and other["study"].get("workers_per_trial", 1) == study.workers_per_trial
        and collect_fingerprints(other["inputs"]).get("data") == collect_fingerprints(inputs).get("data")
        and all(student.name in students for student in study.students)
    )


def _trials(folder: Path, device: str) -> list[Mapping[str, Any]]:
    """The trials on record that trained an epoch on such a device."""
    rows = read_segments(folder / "trials", pa.schema(TRIAL_COLUMNS)).to_pylist()
    last = {row["trial_id"]: row for row in rows}
    return [row for row in last.values() if row["epochs_done"] and row["device"] in (device, None)]


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], float]:
    seconds: dict[tuple[str, ...], float] = {}
    epochs: dict[tuple[str, ...], int] = {}
    for row in rows:
        for key in _from_close_to_far(row["phase"], row["cell"], row["student"]):
            seconds[key] = seconds.get(key, 0.0) + row["seconds"]
            epochs[key] = epochs.get(key, 0) + row["epochs_done"]
    return {key: seconds[key] / epochs[key] for key in seconds}

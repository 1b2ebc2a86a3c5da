"""Where a study stands, read from its rows, also while it runs: its cells, what runs, what failed, what it has used.

How it looks on a screen is showing.py's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from study.cli.list_studies import (
    State,
    count_search_trials,
    derive_state,
    find_driver,
    group_by_slot,
    read_epoch_rows,
    read_shown_study,
    read_trial_rows,
)
from study.engine.usage import HOUR, sum_wall_seconds
from study.records.study_json import list_runs
from study.storage.locations import display_path
from study.trial import TrialState


@dataclass(frozen=True)
class CellStatus:
    """A row of the table of cells."""

    cell: str
    phase: str
    searched: int
    to_search: int
    stopped: int
    failed: int
    best: float | None
    """The best completed search trial's score."""
    best_params: Mapping[str, Any]
    confirmed: int
    to_confirm: int
    test_mean: float | None
    """Only once every seed is confirmed."""
    test_std: float | None


@dataclass(frozen=True)
class TrialStatus:
    """A trial under way, or one that failed."""

    trial: str
    cell: str
    phase: str
    number: int
    epoch: int
    epochs: int
    worker: str
    started: datetime
    """Of a resumed one too: its first start."""
    reason: str
    traceback: Path | None


@dataclass(frozen=True)
class Usage:
    """What the study has taken so far, and its caps."""

    epochs: int
    wall_hours: float
    """From each run's start to its last sign of life."""
    gpu_hours: float
    most_wall_hours: float | None
    most_gpu_hours: float | None


@dataclass(frozen=True)
class StudyStatus:
    """Where a study stands."""

    name: str
    folder: Path
    question: str
    state: State
    by: str
    metric: str
    test_metric: str
    cells: tuple[CellStatus, ...]
    running: tuple[TrialStatus, ...]
    """In a study that nobody runs: cut off, and first to go on."""
    failed: tuple[TrialStatus, ...]
    used: Usage
    command: str
    """Of the last run."""
    next: str
    """The command that is likely wanted now."""


def read_status(folder: Path) -> StudyStatus:
    """Read where the study in `folder` stands.

    Raises RecordsError for a part of it that cannot be read.
    """
    by = find_driver(folder)
    study = read_shown_study(folder)
    trials = read_trial_rows(folder, study)
    epochs = read_epoch_rows(folder)  # second: they are written first, so each trial's are all there
    counted, listed = group_by_slot(trials).values(), study["cells"]
    state = derive_state(study, by)
    reached = {row["trial_id"]: row["epoch"] for row in epochs}
    shown = [(row["state"], _trial(row, reached, folder)) for row in trials]
    return StudyStatus(
        name=folder.name,
        folder=folder,
        question=study["question"],
        state=state,
        by=by,
        metric=study["metric"],
        test_metric=study["test_metric"],
        cells=tuple(_cell(cell, study, [row for row in counted if row["cell"] == cell["cell"]]) for cell in listed),
        running=tuple(trial for name, trial in shown if not TrialState(name).is_finished),
        failed=tuple(trial for name, trial in shown if name == TrialState.FAILED),
        used=_used(study, trials, epochs),
        command=str(study["provenance"].get("command", "")),
        next=_next(folder, state),
    )


def _cell(cell: Mapping[str, Any], study: Mapping[str, Any], trials: list[Mapping[str, Any]]) -> CellStatus:
    metric, test_metric = study["metric"], study["test_metric"]
    planned, seeds = count_search_trials(study, cell), study["budget"]["seeds"]
    search = [row for row in trials if row["phase"] == "search"]
    confirm = [row for row in trials if row["phase"] == "confirm"]
    sign = -1 if study.get("direction") == "min" else 1
    scored = [row for row in search if row["state"] == TrialState.COMPLETE and _finite(row.get(metric))]
    best = max(sorted(scored, key=lambda row: row["number"]), key=lambda row: sign * row[metric], default=None)
    tests = [row[test_metric] for row in confirm if row["state"] == TrialState.COMPLETE and _finite(row[test_metric])]
    whole = len(tests) == seeds
    return CellStatus(
        cell=cell["cell"],
        phase=_phase(search, planned, best is not None, confirm, seeds),
        searched=sum(TrialState(row["state"]).is_finished for row in search),
        count_search_trials=planned,
        stopped=sum(row["state"] == TrialState.PRUNED for row in search),
        failed=sum(row["state"] == TrialState.FAILED for row in trials),
        best=best[metric] if best else None,
        best_params=json.loads(best["params"]) if best else {},
        confirmed=len(tests),
        to_confirm=seeds,
        test_mean=mean(tests) if whole else None,
        test_std=stdev(tests) if whole and len(tests) > 1 else None,
    )


def _phase(
    search: list[Mapping[str, Any]], to_search: int, found: bool, confirm: list[Mapping[str, Any]], seeds: int
) -> str:
    """In the words of the running display."""
    states = [row["state"] for row in confirm]
    searched = sum(TrialState(row["state"]).is_finished for row in search) >= to_search
    if TrialState.FAILED in states or (to_search and searched and not found):
        return "failed"
    if states.count(TrialState.COMPLETE) == seeds:
        return "confirmed"
    if not searched:
        return "searching" if search else "waiting"
    return "confirming" if confirm else "waiting"


def _trial(row: Mapping[str, Any], reached: Mapping[str, int], folder: Path) -> TrialStatus:
    traceback = folder / "checkpoints" / row["trial_id"] / "traceback.txt"
    return TrialStatus(
        trial=row["trial_id"],
        cell=row["cell"],
        phase=row["phase"],
        number=row["number"],
        epoch=max(reached.get(row["trial_id"], 0), row["epochs_done"]),
        epochs=row["epochs"],
        worker=row["worker"] or "",
        started=row["started"],
        reason=row["reason"] or "",
        traceback=traceback if row["state"] == TrialState.FAILED and traceback.is_file() else None,
    )


def _used(study: Mapping[str, Any], trials: list[dict[str, Any]], epochs: list[dict[str, Any]]) -> Usage:
    signs = [row["recorded"] for row in epochs] + [row["ended"] for row in trials if row["ended"]]
    gpus = {row["trial_id"]: row["gpus"] or 0.0 for row in trials}
    return Usage(
        epochs=len(epochs),
        wall_hours=sum_wall_seconds(list_runs(study), signs) / HOUR,
        gpu_hours=sum(row["seconds"] * gpus.get(row["trial_id"], 0.0) for row in epochs) / HOUR,
        most_wall_hours=study["budget"].get("wall_hours"),
        most_gpu_hours=study["budget"].get("gpu_hours"),
    )


def _next(folder: Path, state: State) -> str:
    page = folder / "report.html"
    if state == "running":
        return f"stop it: python -m study stop {format_study_argument(folder)}"
    if state == "finished":
        return (
            f"report: {page}" if page.is_file() else f"write its report: python -m reports.build {display_path(folder)}"
        )
    return f"go on with it: python -m study resume {format_study_argument(folder)}"


def format_study_argument(folder: Path) -> str:
    """How a study is named on a command line given here: its name where that is enough."""
    return folder.name if folder.parent.resolve() == Path("runs").resolve() else display_path(folder)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)

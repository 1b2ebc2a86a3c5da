"""The status of one study, read from its rows, also while it runs: its cells, trials, failures and hours used.

study/cli/show.py renders it.
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

from study.cli.list_studies import State, derive_state
from study.engine.usage import HOUR, sum_gpu_seconds, sum_wall_seconds
from study.records.paths import DEFAULT_STORAGE, StudyPaths
from study.records.progress import (
    count_cell_confirms,
    count_cell_searches,
    count_failed,
    group_by_slot,
    read_epoch_totals,
    read_shown_study,
    read_trial_rows,
)
from study.records.rows import is_finite
from study.records.study_json import list_runs
from study.storage.locations import display_path
from study.storage.remote import find_driver
from study.trial import TrialState

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class CellStatus:
    """The progress of one cell."""

    cell: str
    phase: str
    searched: int
    to_search: int
    stopped: int
    failed: int
    best: float | None
    """The best score among completed search trials."""
    best_params: Mapping[str, Any]
    confirmed: int
    to_confirm: int
    """Seeds of all points, if a front is confirmed."""
    test_mean: float | None
    """Of the best point by validation; None until its every seed is confirmed."""
    test_std: float | None


@dataclass(frozen=True)
class TrialStatus:
    """A running or failed trial."""

    trial: str
    cell: str
    phase: str
    number: int
    epoch: int
    epochs: int
    worker: str
    started: datetime
    """The first start of a resumed trial."""
    reason: str
    traceback: Path | None


@dataclass(frozen=True)
class StudyUsage:
    """The hours that a study has used, and its caps."""

    epochs: int
    wall_hours: float
    gpu_hours: float
    most_wall_hours: float | None
    most_gpu_hours: float | None
    usd: float | None
    """Cost of the GPU hours, if their price is given."""


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study; the field names are the keys of `show --json`."""

    name: str
    folder: Path
    question: str
    state: State
    by: str
    metric: str
    test_metric: str
    cells: tuple[CellStatus, ...]
    running: tuple[TrialStatus, ...]
    """Without a driver: trials that were cut off, which are resumed first."""
    failed: tuple[TrialStatus, ...]
    used: StudyUsage
    command: str
    """The command of the last run."""
    next: str
    """The command that the user most likely wants next."""


def read_status(folder: Path) -> StudyStatus:
    """Return the status of the study in `folder`. Raises RecordsError naming a file that cannot be read."""
    driver = find_driver(folder)
    study = read_shown_study(folder)
    trials = read_trial_rows(folder, study)
    # after the trials: epochs are written first, so none of a trial's is missing
    totals, recorded = read_epoch_totals(folder)
    state = derive_state(study, driver)
    last_epochs = {row["trial_id"]: row["last_epoch"] for row in totals}
    listed = [(row["state"], _to_trial_status(row, last_epochs, folder)) for row in trials]
    return StudyStatus(
        name=folder.name,
        folder=folder,
        question=study["question"],
        state=state,
        by=driver,
        metric=study["metric"],
        test_metric=study["test_metric"],
        cells=tuple(
            _to_cell_status(cell, study, [row for row in trials if row["cell"] == cell["cell"]])
            for cell in study["cells"]
        ),
        running=tuple(trial for name, trial in listed if not TrialState(name).is_finished),
        failed=tuple(trial for name, trial in listed if name == TrialState.FAILED),
        used=_read_usage(study, trials, totals, recorded),
        command=str(study["provenance"].get("command", "")),
        next=_suggest_command(folder, state),
    )


def _to_cell_status(cell: Mapping[str, Any], study: Mapping[str, Any], trials: Rows) -> CellStatus:
    metric, test_metric = study["metric"], study["test_metric"]
    by_slot = group_by_slot(trials).values()
    search = [row for row in by_slot if row["phase"] == "search"]
    confirm = [row for row in by_slot if row["phase"] == "confirm"]
    planned, seeds = count_cell_searches(study, cell), count_cell_confirms(study, cell, confirm)
    complete = [
        row
        for row in search
        if row["state"] == TrialState.COMPLETE
        and is_finite(row.get(metric))
        and row["end_epoch"] in (None, row["epochs"])  # links of a chain that end earlier cannot be chosen
    ]
    best = min(complete, key=lambda row: (_rank(row, study), row["number"]), default=None)
    confirmed = [row for row in confirm if row["state"] == TrialState.COMPLETE and is_finite(row[test_metric])]
    tests = [row[test_metric] for row in confirmed if not row.get("point")]
    is_confirmed = len(tests) == study["budget"]["seeds"]
    return CellStatus(
        cell=cell["cell"],
        phase=_derive_phase(search, planned, best is not None, confirm, seeds),
        searched=sum(TrialState(row["state"]).is_finished for row in search),
        to_search=planned,
        stopped=sum(row["state"] == TrialState.PRUNED for row in search),
        failed=count_failed(trials),
        best=best[metric] if best else None,
        best_params=json.loads(best["params"]) if best else {},
        confirmed=len(confirmed),
        to_confirm=seeds,
        test_mean=mean(tests) if is_confirmed else None,
        test_std=stdev(tests) if is_confirmed and len(tests) > 1 else None,
    )


def _rank(row: Mapping[str, Any], study: Mapping[str, Any]) -> list[float]:
    """Return what ranks a completed trial, lowest first: its metric, then further objectives, as the engine does."""
    ranks = []
    for name in (study["metric"], *(study.get("objectives") or ())):
        declared = study["metrics"].get(name)
        direction = declared.get("direction") if isinstance(declared, dict) else declared  # schema 1: the direction
        if name == study["metric"]:
            direction = study.get("direction", direction)
        sign, value = 1.0 if direction == "min" else -1.0, row.get(name)
        ranks.append(sign * value if is_finite(value) else math.inf)
    return ranks


def _derive_phase(search: Rows, to_search: int, has_best: bool, confirm: Rows, seeds: int) -> str:
    """Return the phase of a cell in the words of the progress display (study/engine/live_display.py)."""
    states = [row["state"] for row in confirm]
    search_done = sum(TrialState(row["state"]).is_finished for row in search) >= to_search
    if TrialState.FAILED in states or (to_search and search_done and not has_best):
        return "failed"
    if states.count(TrialState.COMPLETE) == seeds:
        return "confirmed"
    if not search_done:
        return "searching" if search else "waiting"
    return "confirming" if confirm else "waiting"


def _to_trial_status(row: Mapping[str, Any], last_epochs: Mapping[str, int], folder: Path) -> TrialStatus:
    traceback = StudyPaths(folder).traceback(row["trial_id"])
    return TrialStatus(
        trial=row["trial_id"],
        cell=row["cell"],
        phase=row["phase"],
        number=row["number"],
        epoch=max(last_epochs.get(row["trial_id"], 0), row["epochs_done"]),
        epochs=row["epochs"],
        worker=row["worker"] or "",
        started=row["started"],
        reason=row["reason"] or "",
        traceback=traceback if row["state"] == TrialState.FAILED and traceback.is_file() else None,
    )


def _read_usage(
    study: Mapping[str, Any], trials: list[dict[str, Any]], totals: list[dict[str, Any]], recorded: list[datetime]
) -> StudyUsage:
    ended = [row["ended"] for row in trials if row["ended"] is not None]
    gpu_hours, usd_per_hour = sum_gpu_seconds(trials, totals) / HOUR, study["budget"].get("usd_per_hour")
    return StudyUsage(
        epochs=sum(row["epochs"] for row in totals),
        wall_hours=sum_wall_seconds(list_runs(study), [*recorded, *ended]) / HOUR,
        gpu_hours=gpu_hours,
        most_wall_hours=study["budget"].get("wall_hours"),
        most_gpu_hours=study["budget"].get("gpu_hours"),
        usd=gpu_hours * usd_per_hour if usd_per_hour else None,
    )


def _suggest_command(folder: Path, state: State) -> str:
    if state == "running":
        return f"stop it: python -m study stop {format_study_argument(folder)}"
    if state != "finished":
        return f"continue it: python -m study resume {format_study_argument(folder)}"
    report = StudyPaths(folder).report
    if report.is_file():
        return f"report: {report}"
    return f"write its report: python -m reports.build {display_path(folder)}"


def format_study_argument(folder: Path) -> str:
    """Return the STUDY argument for a command typed here: the name if the study lies in the default storage."""
    is_default = folder.parent.resolve() == Path(DEFAULT_STORAGE).resolve()
    return folder.name if is_default else display_path(folder)

"""The state of a study as the live page shows it, read from its rows as `show` and the report read them.

Reading takes no lock for longer than a moment and changes nothing, so a running study does not notice it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.analysis.comparison import compare_arms
from reports.figures.comparison import draw_curves
from reports.figures.search import draw_search_so_far
from reports.figures.style import ReportFigure
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import format_params, format_value, shorten
from reports.frames import parse_json_object
from reports.load import StudyRecords, load_study
from reports.page.sections import make_header
from reports.tables.comparison import make_comparison_table
from reports.tables.trials import name_state
from study.cli.status import StudyStatus, TrialStatus, read_status
from study.records.lock import is_stop_requested, read_skip_requests
from study.records.paths import EPOCHS, TRIALS, StudyPaths
from study.storage.remote import find_driver

LATEST_TRIALS = 100
"""Rows of the table of trials, the latest first; trials/ has all of them."""

TRACEBACK_BYTES = 20_000
"""The end of a traceback that is shown, which names the error."""

MAX_FAILURES = 20
"""Causes of failures that are shown, the latest ones."""


@dataclass(frozen=True)
class Failure:
    """Trials of a cell and phase that failed for one reason, such as all of a search."""

    trials: tuple[TrialStatus, ...]
    traceback: str
    """Of the latest trial; empty if it left none."""


@dataclass(frozen=True)
class StudyReading:
    """One study at one moment."""

    status: StudyStatus
    records: StudyRecords
    metric: Metric
    test_metric: Metric
    header: Mapping[str, Any]
    """The answers, warnings and notices of its report, all provisional while it is unfinished."""
    comparisons: tuple[Table, ...]
    figures: Mapping[str, ReportFigure]
    """Figures by a key that stays the same while the study runs."""
    trials: Table
    failures: tuple[Failure, ...]
    has_report: bool
    is_stopping: bool
    skips: frozenset[str]
    """Ids of trials that were asked to be skipped."""

    @property
    def ended(self) -> int:
        """Number of search and confirm trials that have ended, in whatever state."""
        rows = self.records.trials[self.records.trials["phase"] != "prepare"]
        ended = rows[~rows["state"].isin(["RUNNING", "INTERRUPTED", "SUPERSEDED"])]
        return len(ended.fillna({"point": 0}).drop_duplicates(["cell", "phase", "number", "point"]))

    @property
    def planned(self) -> int:
        return sum(cell.to_search + cell.to_confirm for cell in self.status.cells)

    @staticmethod
    def format_settings(settings: Mapping[str, Any]) -> str:
        """Return settings as text that breaks between them alone."""
        return ", ".join(f"{name}\N{NO-BREAK SPACE}{format_value(value)}" for name, value in settings.items())


def sign_study(folder: Path) -> tuple[object, ...]:
    """Return a value that changes when the study's records, its driver, its report or a request to it changes."""
    names = (*(path for name in (TRIALS, EPOCHS) for path in _scan(folder / name)), *_scan(folder))
    return (find_driver(folder), *names)


def _scan(folder: Path) -> list[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, (stat := entry.stat()).st_mtime_ns, stat.st_size) for entry in entries)
    except OSError:  # not there yet, or a file was replaced meanwhile
        return []


def read_study(folder: Path) -> StudyReading:
    """Return the state of the study in `folder`. Raises RecordsError naming a file that cannot be read."""
    status, records = read_status(folder), load_study(folder)
    return StudyReading(
        status=status,
        records=records,
        metric=records.get_metric(records.metric),
        test_metric=records.get_metric(records.test_metric),
        header=make_header(records),
        comparisons=tuple(make_comparison_table(comparison) for comparison in compare_arms(records)),
        figures=_draw_figures(records),
        trials=_make_trials_table(records),
        failures=_group_failures(status.failed),
        has_report=StudyPaths(folder).report.is_file(),
        is_stopping=is_stop_requested(folder),
        skips=read_skip_requests(folder),
    )


def _draw_figures(records: StudyRecords) -> dict[str, ReportFigure]:
    """Return the curves of confirm runs by student, then history and validation curves of each search."""
    figures = {}
    for number, student in enumerate(records.students):
        if figure := draw_curves(records, student):
            figures[f"curves-{number}"] = figure
    for number, cell in enumerate(records.cells):
        for figure in draw_search_so_far(records, cell) if cell.searched else ():
            figures[f"{figure.name}-{number}"] = figure
    return figures


def _make_trials_table(records: StudyRecords) -> Table:
    """Return the latest trials of both phases, with their score on validation or test."""
    trials = records.trials[records.trials["phase"] != "prepare"].sort_values("started", ascending=False)
    done = records.epochs.groupby("trial_id")["epoch"].max()
    hidden = len(trials) - LATEST_TRIALS
    return Table(
        name="trials",
        caption="Trials, the latest first",
        columns=("cell", "trial", "state", "epochs", "score", "settings", "reason"),
        align="lllrrll",
        rows=tuple(_make_trial_row(records, row, done) for _, row in trials.head(LATEST_TRIALS).iterrows()),
        notes=(f"{hidden} earlier ones in trials/.",) if hidden > 0 else (),
    )


def _make_trial_row(records: StudyRecords, trial: pd.Series, done: pd.Series) -> tuple[str, ...]:
    name = records.metric if trial["phase"] == "search" else records.test_metric
    epochs = max(int(done.get(trial["trial_id"], 0)), int(trial["epochs_done"]))
    return (
        str(trial["cell"]),
        f"{trial['phase']} {trial['number']}",
        name_state(trial["state"]),
        f"{epochs} of {trial['epochs']}",
        records.get_metric(name).format(float(trial[name])),
        format_params(parse_json_object(trial["params"])) or "–",
        shorten(reason, 200) if isinstance(reason := trial["reason"], str) and reason else "–",
    )


def _group_failures(failed: Iterable[TrialStatus]) -> tuple[Failure, ...]:
    """Return the latest failures first: trials of one cell, phase and reason together."""
    groups: dict[tuple[str, str, str], list[TrialStatus]] = {}
    for trial in sorted(failed, key=lambda trial: trial.started, reverse=True):
        groups.setdefault((trial.cell, trial.phase, trial.reason), []).append(trial)
    return tuple(Failure(tuple(group), _read_traceback(group[0])) for group in [*groups.values()][:MAX_FAILURES])


def _read_traceback(trial: TrialStatus) -> str:
    if trial.traceback is None:
        return ""
    try:
        text = trial.traceback.read_bytes()
    except OSError:
        return ""
    cut = "…\n" if len(text) > TRACEBACK_BYTES else ""
    return cut + text[-TRACEBACK_BYTES:].decode("utf-8", errors="replace")

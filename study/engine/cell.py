"""Progress of one cell: its search, the points that it confirms, and its confirm trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

import optuna

from study.arm import Cell
from study.engine.population_progress import PopulationProgress
from study.engine.search_progress import SearchProgress
from study.records.rows import RunningTrial
from study.space.params import Params
from study.study import Study
from study.trial import TrialState

FAIL_FAST_TRIALS = 4
"""Failures before the first epoch, with no trial of the cell having reached one, at which the study stops: a cause that
all trials share would otherwise use up the whole search."""


@dataclass(frozen=True)
class RecordedTrial:
    """A trial of an earlier run: its totals, its last state, and the rows of its epochs from the first one on."""

    run: RunningTrial
    state: TrialState
    reason: str
    epochs: list[dict[str, Any]]
    at: datetime | None
    """The time at which it ended, or of its last row."""


class CellProgress:
    """Progress of one cell: finished trials, and the trials that are left."""

    def __init__(self, study: Study, cell: Cell, journal: optuna.storages.BaseStorage, warm: Sequence[Params] = ()):
        self.name, self.cell, self._study = cell.name, cell, study
        self.needs_teacher = cell.arm.needs_teacher
        kind = PopulationProgress if cell.arm.search else SearchProgress
        self.search: SearchProgress = kind(study, cell, journal, warm)
        self.points: list[Mapping[str, Any]] | None = None
        """The parameters to confirm; None until the coordinator has decided them, none if no search trial completed."""
        self.confirmed: dict[tuple[int, int], TrialState | None] = {}
        """State of each started confirm trial, by its number and point; None until it has ended."""
        self.earlier_confirms: list[RecordedTrial] = []
        """Confirm trials of earlier runs, until the search is done and it is known which of them count."""
        self.has_epochs = False
        """Whether any trial has completed an epoch."""
        self._first_failures: dict[str, str] = {}
        """Reason of the first failed trial of each phase, for messages."""
        self._failed_at_once = 0

    def end_trial(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        if run.trial.phase == "search":
            self.search.end(run, state, reason)
        else:
            self.confirmed[run.trial.number, run.trial.point] = state
        self.note_failure(run, state, reason)

    def note_failure(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        """Keep the first failure's reason, and count failures before the first epoch."""
        if state is TrialState.FAILED:
            self._first_failures.setdefault(run.trial.phase, reason)
            self._failed_at_once += run.epochs_done == 0 and "refused" not in run.trial.config

    @property
    def planned_confirms(self) -> int:
        """The number of confirm trials; the largest possible one until it is decided."""
        points = self._study.count_confirm_points(self.cell) if self.points is None else len(self.points)
        return points * self._study.budget.seeds

    @property
    def confirms_left(self) -> list[tuple[int, int]]:
        """Number and point of the confirm trials that can start now, low numbers of all points first."""
        pairs = product(range(self._study.budget.seeds), range(len(self.points or ())))
        return [pair for pair in pairs if pair not in self.confirmed]

    @property
    def done(self) -> bool:
        """Every search trial has ended and every confirm trial is complete."""
        states = list(self.confirmed.values())
        complete = all(state is TrialState.COMPLETE for state in states)
        return bool(self.points) and len(states) == self.planned_confirms and complete

    @property
    def fail_fast_reason(self) -> str:
        """Reason to stop the whole study: all first trials of this cell failed before their first epoch."""
        if self.has_epochs or self._failed_at_once < FAIL_FAST_TRIALS:
            return ""
        first = next(iter(self._first_failures.values()))
        return (
            f"{self.name}: its first {self._failed_at_once} trials all failed at once, the first with {first}: "
            "the study stops; remove the cause, then run again with --retry-failed"
        )

    @property
    def problem(self) -> str:
        """Reason why this cell cannot become complete; empty if it is or still can."""
        if self.search.trials and self.search.done and self.search.best_number is None:
            return self.search.explain_failure(self._first_failures.get("search", ""))
        failed = sum(state is TrialState.FAILED for state in self.confirmed.values())
        if not failed:
            return ""
        runs = "seeds" if self.planned_confirms == self._study.budget.seeds else "confirm runs"
        return f"{failed} of {self.planned_confirms} {runs} failed, the first with {self._first_failures['confirm']}"

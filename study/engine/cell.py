"""Progress of one cell: its search with the stopping rule, the chosen configuration, its confirm trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

import optuna

from study.arm import Cell
from study.engine.student_costs import compute_excess
from study.identity import derive_seed, digest
from study.records.rows import RunningTrial
from study.search.front import find_front, spread_front
from study.search.halving import Rungs, find_first_judged_epoch
from study.search.samplers import Random
from study.search.searcher import CellSearcher
from study.space.domains import Value
from study.space.params import Params, merge_first_points
from study.study import Study
from study.trial import Link, Trial, TrialState

FAIL_FAST_TRIALS = 4
"""Failures before the first epoch, with no trial of the cell having reached one, at which the study stops: a cause that
all trials share would otherwise use up the whole search."""


@dataclass(frozen=True)
class Proposal:
    """The next search trial of a cell."""

    number: int
    params: Params
    link: Link | None = None
    """The part of a run that it trains, for a member of a population."""


@dataclass(frozen=True)
class EarlierConfirm:
    """A confirm trial of an earlier run; whether it counts is known once its cell's search is done."""

    run: RunningTrial
    state: TrialState
    reason: str
    at: datetime | None
    """The time at which it ended, or of its last row."""


class CellProgress:
    """Progress of one cell: finished trials, and the trials that are left."""

    def __init__(self, study: Study, cell: Cell, journal: optuna.storages.BaseStorage, warm: Sequence[Params] = ()):
        self.name, self.cell, self._study = cell.name, cell, study
        self.needs_teacher = cell.arm.needs_teacher
        self.trials = study.count_trials(cell)
        """Number of search trials."""
        self.search_runs = study.count_search_runs(cell)
        """Number of whole runs that they amount to at most."""
        self.params: dict[int, Mapping[str, Value]] = {}
        """Parameters of each started search trial, by number."""
        self.searched: dict[int, tuple[TrialState, float | None]] = {}
        """State of each ended search trial, with its score if it completed."""
        self.values: dict[int, list[float]] = {}
        """The metric and further objectives of each complete search trial, by number."""
        self.search_epochs: dict[int, int] = {}
        """Number of epochs of each ended search trial."""
        self.points: list[Mapping[str, Any]] | None = None
        """The parameters to confirm; None until the coordinator has decided them, none if no search trial completed."""
        self.confirmed: dict[tuple[int, int], TrialState | None] = {}
        """State of each started confirm trial, by its number and point; None until it has ended."""
        self.earlier_confirms: list[EarlierConfirm] = []
        """Confirm trials of earlier runs, until the search is done."""
        self.first_failure = ""
        """Reason of the first failed trial, for messages."""
        self.first_stop = ""
        """Reason of the first trial that was stopped, for messages."""
        self.has_epochs = False
        """Whether any trial has completed an epoch."""
        self._failed_at_once = 0
        self._next_number = 0
        """No search trial with a lower number is left to start."""
        self._ended_below = 0
        """All search trials with a lower number have ended."""
        self._first_judged: dict[int, int] = {}
        self._rungs = Rungs(
            study.stopping,
            study.direction,
            study.budget.epochs,
            derive_seed(study.seed, "stopping", cell.name),
            study.reproducible_search,
        )
        if cell.is_searched:
            seeds = [derive_seed(study.seed, "sampler", cell.name, n) for n in range(self.trials)]
            directions, first = [*study.objective_directions.values()], merge_first_points(cell.first_points, warm)
            sampler = study.sampler if cell.arm.search is None else Random()  # which draws a population's first members
            self._search = CellSearcher(
                cell.name, cell.space, sampler, directions, seeds, journal, first, study.reproducible_search
            )

    # -- trials of either phase ------------------------------------------------------------------------------------

    def end_trial(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        trial = run.trial
        if trial.phase == "search":
            excess = compute_excess(self._study, run.metrics)
            self._search.tell(trial.number, trial.id, state, self._collect_objectives(run, state), trial.link, excess)
            self._note_search(run, state, reason)
        else:
            self.confirmed[trial.number, trial.point] = state
        self.note_failure(run, state, reason)

    def restore_search(self, run: RunningTrial, state: TrialState, reason: str, scores: Mapping[int, float]) -> None:
        """Restore a search trial that ended in an earlier run; `scores` holds the selection metric by epoch."""
        trial = run.trial
        values = self._collect_objectives(run, state)
        excess = compute_excess(self._study, run.metrics)
        self._search.add_trial(trial.id, trial.params, state, values, scores, trial.link, excess)
        self.params[trial.number] = trial.params
        self._note_search(run, state, reason)
        self.note_failure(run, state, reason)

    def reopen_search(self, trial: Trial, scores: Mapping[int, float]) -> None:
        """Restore a search trial that had not ended."""
        self._search.open_trial(trial.number, trial.params, scores)
        self.params[trial.number] = trial.params

    def note_failure(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        """Keep the first failure's reason, and count failures before the first epoch."""
        if state is not TrialState.FAILED:
            return
        self.first_failure = self.first_failure or reason
        if run.epochs_done == 0:
            self._failed_at_once += "refused" not in run.trial.config

    def _note_search(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        if state is TrialState.PRUNED:
            self.first_stop = self.first_stop or reason
        score = run.metrics.get(self._study.metric) if state is TrialState.COMPLETE else None
        self.searched[run.trial.number] = (state, score)
        if values := self._collect_objectives(run, state):
            self.values[run.trial.number] = values
        self.search_epochs[run.trial.number] = run.epochs_done

    def _collect_objectives(self, run: RunningTrial, state: TrialState) -> list[float] | None:
        names = self._study.objective_directions
        return [run.metrics[name] for name in names] if state is TrialState.COMPLETE else None

    # -- search ----------------------------------------------------------------------------------------------------

    @property
    def proposals_left(self) -> int:
        return self.trials - len(self.params)

    @property
    def search_done(self) -> bool:
        return len(self.searched) == self.trials

    @property
    def can_propose(self) -> bool:
        """True if a search trial can start now; in a reproducible search, once those it is proposed from have ended."""
        if not self.proposals_left:
            return False
        lag = self._study.reproducible_search
        while self._ended_below in self.searched:
            self._ended_below += 1
        return lag is None or self._find_next_number() - lag < self._ended_below

    def _find_next_number(self) -> int:
        while self._next_number in self.params:
            self._next_number += 1
        return self._next_number

    def propose(self) -> Proposal:
        """Return the next search trial."""
        number = self._find_next_number()
        self.params[number] = self._search.ask(number)
        return Proposal(number, self.params[number])

    def report_epoch(self, run: RunningTrial) -> str | None:
        """Report a search trial's last epoch to the sampler; return why the stopping rule ends it, or None."""
        epoch, value = run.epoch, run.metrics[self._study.metric]
        self._search.report(run.trial.number, epoch, value)
        return self.check_stopping_rule(run.trial, epoch, value)

    def check_stopping_rule(self, trial: Trial, epoch: int, value: float) -> str | None:
        """Return why the stopping rule ends a search trial after this epoch, or None."""
        number = trial.number
        if number not in self._first_judged:
            self._first_judged[number] = find_first_judged_epoch(self.cell.space, trial.params, trial.epochs)
        return self._rungs.report(number, epoch, value) if epoch >= self._first_judged[number] else None

    # -- confirm ---------------------------------------------------------------------------------------------------

    @property
    def best_number(self) -> int | None:
        """The number of the completed search trial with the best score: the first point of its front.

        Of equals the best in further objectives, then the lowest number.
        """
        signs = [-1 if direction == "max" else 1 for direction in self._study.objective_directions.values()]

        def rank(number: int) -> tuple[list[float], int]:
            return [sign * value for sign, value in zip(signs, self.values[number], strict=True)], number

        return min(self.values, key=rank, default=None)

    @property
    def chosen_params(self) -> Mapping[str, Any] | None:
        """The parameters to confirm; {} without a search, None until the search is done or if no trial completed."""
        if not self.trials:
            return {}
        return self.params[self.best_number] if self.search_done and self.best_number is not None else None

    def select_numbers(self) -> list[int]:
        """Return the search trials to confirm, at most `front_size` points of the front; none if no trial completed.

        Of trials with equal parameters, whose values may differ by noise, the first of the front counts.
        """
        first: dict[str, int] = {}
        for number in find_front(self.values, [*self._study.objective_directions.values()]):
            first.setdefault(digest(self.params[number]), number)
        return spread_front([*first.values()], self.values, self._study.front_size)

    def select_points(self) -> list[Mapping[str, Any]]:
        """Return the parameters to confirm from this cell's own search."""
        if self._study.front_size > 1 and self.trials:
            return [self.params[number] for number in self.select_numbers()]
        return [] if self.chosen_params is None else [self.chosen_params]

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
        return (
            f"{self.name}: its first {self._failed_at_once} trials all failed at once, the first with "
            f"{self.first_failure}: the study stops; remove the cause, then run again with --retry-failed"
        )

    @property
    def problem(self) -> str:
        """Reason why this cell cannot become complete; empty if it is or still can."""
        if self.trials and self.search_done and self.best_number is None:
            return self.explain_failed_search()
        failed = sum(state is TrialState.FAILED for state in self.confirmed.values())
        if not failed:
            return ""
        runs = "seeds" if self.planned_confirms == self._study.budget.seeds else "confirm runs"
        return f"{failed} of {self.planned_confirms} {runs} failed, the first with {self.first_failure}"

    def explain_failed_search(self) -> str:
        """Return why the search has chosen nothing: what became of its trials."""
        return f"none of its {self.trials} search trials completed: {self.count_incomplete(self.searched)}"

    def count_incomplete(self, numbers: Iterable[int]) -> str:
        """Return how many of these ended search trials failed, with a reason, and how many were stopped."""
        states = [self.searched[number][0] for number in numbers]
        failed, stopped = states.count(TrialState.FAILED), states.count(TrialState.PRUNED)
        parts = [f"{failed} failed, the first with {self.first_failure}"] if failed else []
        why = f", the first as {self.first_stop}" if self._study.constraints else ""
        parts += [f"{stopped} stopped early or skipped by hand{why}"] if stopped else []
        return ", ".join(parts)

    def release_checkpoints(self) -> list[tuple[str, TrialState]]:
        """Return id and state of links of chains whose checkpoint is no longer needed; none without a population."""
        return []

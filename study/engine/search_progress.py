"""Progress of one cell's search: its trials, the next proposal, the stopping rule, and the points that it chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Proposal:
    """The next search trial of a cell."""

    number: int
    params: Params
    link: Link | None = None
    """The part of a run that it trains, for a member of a population."""


class SearchProgress:
    """The search of one cell; without domains it has no trials and is done."""

    def __init__(self, study: Study, cell: Cell, journal: optuna.storages.BaseStorage, warm: Sequence[Params] = ()):
        self._study, self._cell = study, cell
        self.trials, self.runs = study.count_trials(cell), study.count_search_runs(cell)
        """Number of trials, and of the whole runs that they amount to at most."""
        self.params: dict[int, Mapping[str, Value]] = {}
        """Parameters of each started trial, by number."""
        self.ended: dict[int, tuple[TrialState, float | None]] = {}
        """State of each ended trial, with its score if it completed."""
        self.epochs: dict[int, int] = {}
        """Number of epochs of each ended trial."""
        self.values: dict[int, list[float]] = {}
        """The metric and further objectives of each complete trial, by number."""
        self._first_stop = ""
        """Reason of the first trial that was stopped, for messages."""
        self._next_number = 0
        """No trial with a lower number is left to start."""
        self._ended_below = 0
        """All trials with a lower number have ended."""
        self._first_judged: dict[int, int] = {}
        lag, seed = study.reproducible_search, derive_seed(study.seed, "stopping", cell.name)
        self._rungs = Rungs(study.stopping, study.direction, study.budget.epochs, seed, lag)
        if cell.is_searched:
            seeds = [derive_seed(study.seed, "sampler", cell.name, n) for n in range(self.trials)]
            directions, first = [*study.objective_directions.values()], merge_first_points(cell.first_points, warm)
            sampler = study.sampler if cell.arm.search is None else Random()  # which draws a population's first members
            self._searcher = CellSearcher(cell.name, cell.space, sampler, directions, seeds, journal, first, lag)

    # -- trials that end, or ended in an earlier run ---------------------------------------------------------------

    def end(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        trial, values = run.trial, self._collect_objectives(run, state)
        excess = compute_excess(self._study, run.metrics)
        self._searcher.tell(trial.number, trial.id, state, values, trial.link, excess)
        self._note_end(run, state, reason, values)

    def restore(self, run: RunningTrial, state: TrialState, reason: str, scores: Mapping[int, float]) -> None:
        """Restore a trial that ended in an earlier run; `scores` holds the selection metric by epoch."""
        trial, values = run.trial, self._collect_objectives(run, state)
        excess = compute_excess(self._study, run.metrics)
        self._searcher.add_trial(trial.id, trial.params, state, values, scores, trial.link, excess)
        self.params[trial.number] = trial.params
        self._note_end(run, state, reason, values)

    def reopen(self, trial: Trial, scores: Mapping[int, float]) -> None:
        """Restore a trial that had not ended."""
        self._searcher.open_trial(trial.number, trial.params, scores)
        self.params[trial.number] = trial.params

    def _note_end(self, run: RunningTrial, state: TrialState, reason: str, values: list[float] | None) -> None:
        number = run.trial.number
        self.ended[number], self.epochs[number] = (state, values[0] if values else None), run.epochs_done
        if values:
            self.values[number] = values
        if state is TrialState.PRUNED:
            self._first_stop = self._first_stop or reason

    def _collect_objectives(self, run: RunningTrial, state: TrialState) -> list[float] | None:
        names = self._study.objective_directions
        return [run.metrics[name] for name in names] if state is TrialState.COMPLETE else None

    # -- the next proposal, and the stopping rule ------------------------------------------------------------------

    @property
    def proposals_left(self) -> int:
        return self.trials - len(self.params)

    @property
    def done(self) -> bool:
        return len(self.ended) == self.trials

    @property
    def can_propose(self) -> bool:
        """True if a trial can start now; in a reproducible search, once those it is proposed from have ended."""
        if not self.proposals_left:
            return False
        lag = self._study.reproducible_search
        while self._ended_below in self.ended:
            self._ended_below += 1
        return lag is None or self._find_next_number() - lag < self._ended_below

    def _find_next_number(self) -> int:
        while self._next_number in self.params:
            self._next_number += 1
        return self._next_number

    def propose(self) -> Proposal:
        """Return the next trial."""
        number = self._find_next_number()
        self.params[number] = self._searcher.ask(number)
        return Proposal(number, self.params[number])

    def report_epoch(self, run: RunningTrial) -> str | None:
        """Report a trial's last epoch to the sampler; return why the stopping rule ends it, or None."""
        epoch, value = run.epoch, run.metrics[self._study.metric]
        self._searcher.report(run.trial.number, epoch, value)
        return self.check_stopping_rule(run.trial, epoch, value)

    def check_stopping_rule(self, trial: Trial, epoch: int, value: float) -> str | None:
        """Return why the stopping rule ends a trial after this epoch, or None."""
        number = trial.number
        if number not in self._first_judged:
            self._first_judged[number] = find_first_judged_epoch(self._cell.space, trial.params, trial.epochs)
        return self._rungs.report(number, epoch, value) if epoch >= self._first_judged[number] else None

    # -- its result ------------------------------------------------------------------------------------------------

    @property
    def best_number(self) -> int | None:
        """The number of the completed trial with the best score: the first point of its front.

        Of equals the best in further objectives, then the lowest number.
        """
        signs = [-1 if direction == "max" else 1 for direction in self._study.objective_directions.values()]

        def rank(number: int) -> tuple[list[float], int]:
            return [sign * value for sign, value in zip(signs, self.values[number], strict=True)], number

        return min(self.values, key=rank, default=None)

    @property
    def chosen_params(self) -> Mapping[str, Any] | None:
        """The parameters to confirm; {} without a search, None until it is done or if no trial completed."""
        if not self.trials:
            return {}
        return self.params[self.best_number] if self.done and self.best_number is not None else None

    def select_numbers(self) -> list[int]:
        """Return the trials to confirm, at most `front_size` points of the front; none if no trial completed.

        Of trials with equal parameters, whose values may differ by noise, the first of the front counts.
        """
        first: dict[str, int] = {}
        for number in find_front(self.values, [*self._study.objective_directions.values()]):
            first.setdefault(digest(self.params[number]), number)
        return spread_front([*first.values()], self.values, self._study.front_size)

    def select_points(self) -> list[Mapping[str, Any]]:
        """Return the parameters to confirm."""
        if self._study.front_size > 1 and self.trials:
            return [self.params[number] for number in self.select_numbers()]
        return [] if self.chosen_params is None else [self.chosen_params]

    def explain_failure(self, first_failure: str) -> str:
        """Return why the search has chosen nothing: what became of its trials."""
        return f"none of its {self.trials} search trials completed: {self.count_incomplete(self.ended, first_failure)}"

    def count_incomplete(self, numbers: Iterable[int], first_failure: str) -> str:
        """Return how many of these ended trials failed, with a reason, and how many were stopped."""
        states = [self.ended[number][0] for number in numbers]
        failed, stopped = states.count(TrialState.FAILED), states.count(TrialState.PRUNED)
        parts = [f"{failed} failed, the first with {first_failure}"] if failed else []
        why = f", the first as {self._first_stop}" if self._study.constraints else ""
        parts += [f"{stopped} stopped early or skipped by hand{why}"] if stopped else []
        return ", ".join(parts)

    def release_checkpoints(self) -> list[tuple[str, TrialState]]:
        """Return id and state of links of chains whose checkpoint is no longer needed; none without a population."""
        return []

"""Progress of a search by a population: its trials are links of chains, and its result is a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from study.arm import Cell
from study.engine.search_progress import Proposal, SearchProgress
from study.identity import derive_seed
from study.records.rows import RunningTrial
from study.search.population import Population
from study.space.params import Params
from study.study import Study
from study.trial import Trial, TrialState


class PopulationProgress(SearchProgress):
    """The search of a cell whose arm has `search=PopulationBased(…)`."""

    def __init__(self, study: Study, cell: Cell, journal: optuna.storages.BaseStorage, warm: Sequence[Params] = ()):
        super().__init__(study, cell, journal, warm)
        assert cell.arm.search is not None
        self._population = Population(
            cell.arm.search,
            cell.space,
            study.direction,
            study.budget.trials,
            study.budget.epochs,
            derive_seed(study.seed, "population", cell.name),
            study.reproducible_search,
        )

    # -- trials that end, or ended in an earlier run ---------------------------------------------------------------

    def end(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        super().end(run, state, reason)
        self._end_link(run, state)

    def restore(self, run: RunningTrial, state: TrialState, reason: str, scores: Mapping[int, float]) -> None:
        super().restore(run, state, reason, scores)
        self._start_link(run.trial)
        self._end_link(run, state)

    def reopen(self, trial: Trial, scores: Mapping[int, float]) -> None:
        super().reopen(trial, scores)
        self._start_link(trial)
        if scores:
            self._population.note_epoch(trial.number)

    def _start_link(self, trial: Trial) -> None:
        assert trial.link is not None
        self._population.start(trial.number, trial.params, trial.link)

    def _end_link(self, run: RunningTrial, state: TrialState) -> None:
        score = run.metrics[self._study.metric] if state is TrialState.COMPLETE else None
        self._population.end(run.trial.number, run.trial.id, state, score)

    # -- the next proposal, and the stopping rule ------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self._population.done

    @property
    def can_propose(self) -> bool:
        return self._population.find_next() is not None

    def propose(self) -> Proposal:
        number = self._population.find_next()
        assert number is not None
        params, link = self._population.decide(number)
        if params is None:
            params = self._searcher.ask(number)
        else:
            self._searcher.open_trial(number, params, {})
        self.params[number] = params
        self._population.start(number, params, link)
        return Proposal(number, params, link)

    def report_epoch(self, run: RunningTrial) -> str | None:
        self._population.note_epoch(run.trial.number)
        return super().report_epoch(run)

    def check_stopping_rule(self, trial: Trial, epoch: int, value: float) -> str | None:
        """Return None: weak members are replaced, none is stopped."""
        return None

    def release_checkpoints(self) -> list[tuple[str, TrialState]]:
        return [(one.trial_id, one.state) for one in self._population.release_checkpoints() if one.state]

    # -- its result ------------------------------------------------------------------------------------------------

    def explain_failure(self, first_failure: str) -> str:
        """Return in which interval the last members ended, and how: the search needs one at its end."""
        interval = self._population.find_last_interval()
        ended = self.count_incomplete(self._population.list_started(interval), first_failure)
        which = f"interval {interval + 1} of {self._population.intervals}"
        return f"no member of its population completed {which}: {ended}"

    @property
    def best_number(self) -> int | None:
        """The number of the best member's last link."""
        return self._population.best_number

    @property
    def chosen_params(self) -> Mapping[str, Any] | None:
        """The settings of the best member's chain, each a number or the values of a schedule."""
        best = self.best_number
        return self._population.build_schedule(best) if self.done and best is not None else None

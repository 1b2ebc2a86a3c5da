"""One cell's way through a study: its search with its stopping rule, the choice, its confirm seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna

from study.identity import derived_seed
from study.records.rows import RunningTrial
from study.search.halving import Rungs
from study.search.searcher import CellSearcher
from study.space.domains import Value
from study.space.params import Params, merge_first_points
from study.study import Cell, Study, arm_needs_teacher
from study.trial import Trial, TrialState

HOPELESS = 4
"""When so many trials of a cell have failed before their first epoch and none got further, the study stops."""


class CellProgress:
    """What has happened in a cell so far, and what is left to do in it."""

    def __init__(self, study: Study, cell: Cell, journal: optuna.storages.BaseStorage, warm: Sequence[Params] = ()):
        self.name, self.cell, self._study = cell.name, cell, study
        self.needs_teacher = arm_needs_teacher(cell.arm)
        self.trials = study.count_trials(cell.arm)
        self.params: dict[int, Mapping[str, Value]] = {}
        """Of each search trial that was ever started, by number."""
        self.searched: dict[int, tuple[TrialState, float | None]] = {}
        """How each search trial ended, with its score if it completed."""
        self.search_epochs: dict[int, int] = {}
        """How many epochs each ended search trial ran."""
        self.confirmed: dict[int, TrialState | None] = {}
        """How each started confirm trial ended; None while it runs or waits to be resumed."""
        self.first_failure = ""
        """The reason of the first failed trial, for the message that says a cell is not complete."""
        self.got_going = False
        """Whether any trial has told an epoch."""
        self._failed_at_once = 0
        self._rungs = Rungs(
            study.stopping,
            study.direction,
            study.budget.epochs,
            derived_seed(study.seed, "stopping", cell.name),
        )
        if cell.arm.is_searched:
            seeds = [derived_seed(study.seed, "sampler", cell.name, n) for n in range(self.trials)]
            directions, first = [*study.objective_directions.values()], merge_first_points(cell.arm.first_points, warm)
            self._search = CellSearcher(cell.name, cell.arm.loss, study.sampler, directions, seeds, journal, first)

    # -- trials of either phase ------------------------------------------------------------------------------------

    def end_trial(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        """A trial of this cell is over."""
        trial = run.trial
        if trial.phase == "search":
            self._search.tell(trial.number, trial.id, state, self._values(run, state))
            self._note_search(run, state)
        else:
            self.confirmed[trial.number] = state
        self.note_failure(run, state, reason)

    def restore_search(self, run: RunningTrial, state: TrialState, reason: str, scores: Mapping[int, float]) -> None:
        """Put back a search trial that ended in an earlier run; `scores` are its search scores by epoch."""
        trial = run.trial
        self._search.add_trial(trial.id, trial.params, state, self._values(run, state), scores)
        self.params[trial.number] = trial.params
        self._note_search(run, state)
        self.note_failure(run, state, reason)

    def reopen_search(self, trial: Trial, scores: Mapping[int, float]) -> None:
        """Put back a search trial that had not ended."""
        self._search.reopen_trial(trial.number, trial.params, scores)
        self.params[trial.number] = trial.params

    def note_failure(self, run: RunningTrial, state: TrialState, reason: str) -> None:
        """Remember why trials fail, and how many did before their first epoch."""
        if state is TrialState.FAILED:
            self.first_failure = self.first_failure or reason
        if state is TrialState.FAILED and run.epochs_done == 0:
            self._failed_at_once += "refused" not in run.trial.config

    def _note_search(self, run: RunningTrial, state: TrialState) -> None:
        self.searched[run.trial.number] = (state, self._score(run, state))
        self.search_epochs[run.trial.number] = run.epochs_done

    def _score(self, run: RunningTrial, state: TrialState) -> float | None:
        return run.metrics.get(self._study.metric) if state is TrialState.COMPLETE else None

    def _values(self, run: RunningTrial, state: TrialState) -> list[float] | None:
        return (
            [run.metrics[name] for name in self._study.objective_directions] if state is TrialState.COMPLETE else None
        )

    # -- search ----------------------------------------------------------------------------------------------------

    @property
    def proposals_left(self) -> int:
        return self.trials - len(self.params)

    @property
    def search_done(self) -> bool:
        return len(self.searched) == self.trials

    def propose(self) -> tuple[int, Mapping[str, Value]]:
        number = next(n for n in range(self.trials) if n not in self.params)
        self.params[number] = self._search.ask(number)
        return number, self.params[number]

    def report_epoch(self, run: RunningTrial) -> str | None:
        """Note a search trial's last epoch; the reason to stop it, if there is one."""
        number, epoch, value = run.trial.number, run.epochs_done, run.metrics[self._study.metric]
        self._search.report(number, epoch, value)
        return self.verdict(number, epoch, value)

    def verdict(self, number: int, epoch: int, value: float) -> str | None:
        """The stopping rule's part of `saw_epoch` alone."""
        return self._rungs.report(number, epoch, value)

    # -- confirm ---------------------------------------------------------------------------------------------------

    @property
    def best(self) -> int | None:
        """The number of the completed search trial with the best score; the earliest of equals."""
        scores = {n: value for n, (_, value) in self.searched.items() if value is not None}
        sign = -1 if self._study.direction == "max" else 1
        return min(sorted(scores), key=lambda n: sign * scores[n], default=None)

    @property
    def chosen(self) -> Mapping[str, Value] | None:
        """The parameters to confirm: none are needed where nothing is searched; None if the search found nothing."""
        if not self.trials:
            return {}
        return self.params[self.best] if self.search_done and self.best is not None else None

    @property
    def confirm_left(self) -> list[int]:
        """Seed numbers that have not been started; empty while the search goes on."""
        if not self.search_done or self.chosen is None:
            return []
        return [n for n in range(self._study.budget.seeds) if n not in self.confirmed]

    @property
    def done(self) -> bool:
        """Every search trial has ended and every seed is confirmed."""
        states = list(self.confirmed.values())
        return (
            self.search_done
            and len(states) == self._study.budget.seeds
            and all(s is TrialState.COMPLETE for s in states)
        )

    @property
    def fail_fast_reason(self) -> str:
        """Why this cell is not worth going on with: its first trials all failed before their first epoch."""
        if self.got_going or self._failed_at_once < HOPELESS:
            return ""
        return (
            f"{self.name}: its first {self._failed_at_once} trials all failed at once, the first with "
            f"{self.first_failure}: the study stops here; mend the cause, then run again with --retry-failed"
        )

    @property
    def problem(self) -> str:
        """Why this cell cannot be complete; empty if it is or may yet be."""
        if self.trials and self.search_done and self.best is None:
            return f"none of its {self.trials} search trials completed; the first failed with {self.first_failure}"
        failed = sum(state is TrialState.FAILED for state in self.confirmed.values())
        if not failed:
            return ""
        return f"{failed} of {self._study.budget.seeds} seeds failed, the first with {self.first_failure}"

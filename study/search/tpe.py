"""Optuna's TPE with a bounded view of earlier trials, so that late proposals of a long search cost what early ones do.

TPE reads, sorts and models all trials of its search for each proposal. Its model of good trials consists of at most 25
of them, and its model of all others is a density, for which some hundred of them are enough.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Container
from typing import Any, cast
from weakref import WeakKeyDictionary

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.study._multi_objective import _get_pareto_front_trials_by_trials
from optuna.trial import FrozenTrial, TrialState

LOOK_BACK = 400
"""Latest trials that TPE sees. A proposal among twice as many would cost a third more."""

BEST = 25
"""Best complete trials that TPE sees however old they are: as many as it takes at most for its model of good ones."""


class BoundedTpe(TPESampler):
    """TPE that sees the last `LOOK_BACK` trials of a search and the best ones before them.

    Up to `LOOK_BACK` trials its proposals are those of Optuna's TPE. With `ended`, only the first `ended` trials count
    as ended, and all others as running. An instance is for one proposal.
    """

    _view: Study | None = None

    def __init__(self, *, ended: int | None = None, **settings: Any):
        super().__init__(**settings)
        self._ended = ended

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._bound(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._bound(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(self._bound(study), trial, param_name, param_distribution)

    def _bound(self, study: Study) -> Study:
        self._view = self._view or cast(Study, _BoundedStudy(study, self._ended))
        return self._view


class _BoundedStudy:
    """A study whose trials are those that TPE may see; all else is the study's own."""

    def __init__(self, study: Study, ended: int | None):
        self._study = study
        self._trials = select_visible_trials(study, ended)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the visible trials in these states. TPE and Optuna's search spaces read trials by this name alone."""
        return [trial for trial in self._trials if states is None or trial.state in states]


def select_visible_trials(study: Study, ended: int | None = None) -> list[FrozenTrial]:
    """Return the best `BEST` trials before the last `LOOK_BACK`, then those; of several objectives the old front.

    With `ended`, all trials from that number on are running.
    """
    trials = study.get_trials(deepcopy=False)
    if ended is not None:
        trials = trials[:ended] + [_as_running(trial) for trial in trials[ended:]]
    if len(trials) <= LOOK_BACK:
        return trials
    older, recent = trials[:-LOOK_BACK], trials[-LOOK_BACK:]
    if len(study.directions) > 1:
        front = _get_pareto_front_trials_by_trials(trials, study.directions)
        return [trial for trial in front if trial.number < recent[0].number] + recent
    return _OLD_BEST.setdefault(study, _OldBest()).update(older, study.direction) + recent


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as TPE sees it until it ends, whether or not it has."""
    running = copy.copy(trial)
    running.state = TrialState.RUNNING
    running.system_attrs = {}  # TPE's draft of its parameters, which a resumed study does not have
    return running


class _OldBest:
    """The best complete trials among old ones, kept from proposal to proposal: thousands are not looked at each time.

    Which they are depends on the trials alone, by score and then by number.
    """

    def __init__(self) -> None:
        self._best: list[FrozenTrial] = []
        self._seen, self._unfinished = 0, list[int]()

    def update(self, older: list[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        """Return the best of `older` in order; they begin with the older trials of earlier calls."""
        candidates = [older[number] for number in (*self._unfinished, *range(self._seen, len(older)))]
        self._seen = len(older)
        self._unfinished = [trial.number for trial in candidates if not trial.state.is_finished()]
        complete = [trial for trial in candidates if trial.state is TrialState.COMPLETE]
        if complete:
            choose = heapq.nlargest if direction is StudyDirection.MAXIMIZE else heapq.nsmallest
            in_order = sorted(self._best + complete, key=lambda trial: trial.number)
            self._best = choose(BEST, in_order, key=lambda trial: cast(float, trial.value))
        return sorted(self._best, key=lambda trial: trial.number)


_OLD_BEST: WeakKeyDictionary[Study, _OldBest] = WeakKeyDictionary()
"""By the search's Optuna study: a sampler serves one proposal only."""

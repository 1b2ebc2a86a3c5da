"""Proposals for one cell: Optuna's ask and tell, with honest states.

A proposal is a pure function of the study's seed, the trial's number and the trials told so far: the sampler is
seeded anew for each number, so a replayed study proposes what an uninterrupted one would have. Points to try first
and those of a grid are listed beforehand. The Optuna journal in the study's folder is for looking
(`optuna-dashboard`), rebuilt from the rows at each start and never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from study.search.cma import CmaEs, select_numeric_domains
from study.search.samplers import Grid, Random, Sampler, Tpe
from study.space.domains import Choice, Domain, Integer, Value, visit_domains
from study.space.params import Params
from study.trial import Direction, TrialState

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


class CellSearcher:
    """The search of one cell. Trials are known by their number; Optuna's own is the same unless rows were lost.

    `directions` are those of the selection metric and of further objectives, `first` the points to try first. With
    several objectives Optuna takes no intermediate values, and none are reported.
    """

    def __init__(
        self,
        name: str,
        space: Any,
        sampler: Sampler,
        directions: Sequence[Direction],
        seeds: Sequence[int],
        storage: optuna.storages.BaseStorage,
        first: Sequence[Params] = (),
    ):
        self._space, self._sampler, self._directions, self._seeds = space, sampler, directions, seeds
        self._start = first[0] if first else None
        self._listed: list[Params] = [
            *first,
            *(sampler.list_points(space, first, seeds[0]) if isinstance(sampler, Grid) else ()),
        ]
        self._open: dict[int, optuna.trial.Trial] = {}
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize" if direction == "max" else "minimize" for direction in directions],
            pruner=optuna.pruners.NopPruner(),
        )

    def ask(self, number: int) -> dict[str, Value]:
        """The parameters of the next trial, by domain name."""
        return self._open_trial(number, self._known(number))

    def report(self, number: int, epoch: int, value: float) -> None:
        if len(self._directions) == 1:
            self._open[number].report(value, epoch)

    def tell(self, number: int, trial_id: str, state: TrialState, values: Sequence[float] | None) -> None:
        """Close a trial: COMPLETE with its values, PRUNED with the values reported so far, or FAILED."""
        trial = self._open.pop(number)
        trial.set_user_attr("trial_id", trial_id)
        self._study.tell(trial, values if state is TrialState.COMPLETE else None, _STATES[state])

    def add_trial(
        self,
        trial_id: str,
        params: Params,
        state: TrialState,
        values: Sequence[float] | None,
        reported: Mapping[int, float],
    ) -> None:
        """Put a trial that ended in an earlier run back, as `tell` left it; `reported` are its scores by epoch."""
        if len(self._directions) > 1:
            reported = {}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[state],
                values=_optuna_values(state, values, reported),
                params=dict(params),
                distributions=self._distributions(params),
                user_attrs={"trial_id": trial_id},
                intermediate_values=dict(reported),
            )
        )

    def reopen_trial(self, number: int, params: Params, reported: Mapping[int, float]) -> None:
        """Put back a trial that was still running when its study was left."""
        self._open_trial(number, params)
        for epoch, value in reported.items():
            self.report(number, epoch, value)

    def _known(self, number: int) -> Params | None:
        """The next point, where no sampler of Optuna's is asked for it."""
        if number < len(self._listed):
            return self._listed[number]
        if isinstance(self._sampler, CmaEs):
            ended = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
            return self._sampler.propose(
                select_numeric_domains(self._space), ended, self._directions[0], self._start, self._seed(number)
            )
        return None

    def _open_trial(self, number: int, params: Params | None) -> dict[str, Value]:
        sampler = self._sampler if isinstance(self._sampler, Tpe | Random) else Random()
        self._study.sampler = sampler.build(self._seed(number))
        if params is not None:
            self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        visit_domains(self._space, lambda name, domain: _suggest(trial, name, domain))
        self._open[number] = trial
        return dict(trial.params)

    def _seed(self, number: int) -> int:
        return self._seeds[number] % 2**32

    def _distributions(self, params: Params) -> dict[str, BaseDistribution]:
        used: dict[str, BaseDistribution] = {}

        def note(name: str, domain: Domain) -> Value:
            used[name] = to_distribution(domain)
            return params[name]

        visit_domains(self._space, note)
        return used


def _suggest(trial: optuna.trial.Trial, name: str, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        chosen: Value = trial.suggest_categorical(name, domain.labels)
        return chosen
    if isinstance(domain, Integer):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _optuna_values(
    state: TrialState, values: Sequence[float] | None, reported: Mapping[int, float]
) -> Sequence[float] | None:
    # Optuna gives a pruned trial its last intermediate value; a replayed one must look the same
    if state is TrialState.PRUNED and reported:
        return [reported[max(reported)]]
    return values if state is TrialState.COMPLETE else None


def to_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's name for a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.labels)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)

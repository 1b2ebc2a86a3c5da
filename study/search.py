"""Proposals for one cell: Optuna's ask and tell, with honest states.

A proposal is a pure function of the study's seed, the trial's number and the trials told so far: the sampler is
seeded anew for each number, so a replayed study proposes what an uninterrupted one would have. The Optuna journal
in the study's folder is for looking (`optuna-dashboard`), rebuilt from the rows at each start and never read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from study.space import Choice, Domain, Integer, Value, visit
from study.trial import Direction, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


@dataclass(frozen=True)
class Tpe:
    """Tree-structured Parzen estimator; every argument that Optuna 5 still takes is written out: its defaults move.

    Source: Bergstra et al. 2011; multivariate and grouped form by Falkner et al. 2018 as in Optuna.
    """

    startup_trials: int = 8
    candidates: int = 24
    multivariate: bool = True
    group: bool = True
    constant_liar: bool = True

    def build(self, seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=self.startup_trials,
            n_ei_candidates=self.candidates,
            seed=seed,
            multivariate=self.multivariate,
            group=self.group,
            constant_liar=self.constant_liar,
        )


@dataclass(frozen=True)
class Random:
    """Independent draws: the plainest baseline of a search."""

    def build(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


Sampler = Tpe | Random


class CellSearch:
    """The search of one cell. Trials are known by their number; Optuna's own is the same unless rows were lost."""

    def __init__(
        self,
        name: str,
        space: Any,
        sampler: Sampler,
        direction: Direction,
        seeds: Sequence[int],
        storage: optuna.storages.BaseStorage,
    ):
        self._space, self._sampler, self._seeds = space, sampler, seeds
        self._open: dict[int, optuna.trial.Trial] = {}
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize" if direction == "max" else "minimize",
            pruner=optuna.pruners.NopPruner(),
        )

    def ask(self, number: int) -> dict[str, Value]:
        """The parameters of the next trial, by domain name."""
        self._study.sampler = self._sampler.build(self._seeds[number] % 2**32)
        trial = self._study.ask()
        visit(self._space, lambda name, domain: _suggest(trial, name, domain))
        self._open[number] = trial
        return dict(trial.params)

    def report(self, number: int, epoch: int, value: float) -> None:
        self._open[number].report(value, epoch)

    def tell(self, number: int, trial_id: str, state: TrialState, value: float | None) -> None:
        """Close a trial: COMPLETE with its value, PRUNED with the values reported so far, or FAILED."""
        trial = self._open.pop(number)
        trial.set_user_attr("trial_id", trial_id)
        self._study.tell(trial, value if state is TrialState.COMPLETE else None, _STATES[state])

    def replay(
        self,
        trial_id: str,
        params: Mapping[str, Value],
        state: TrialState,
        value: float | None,
        values: Mapping[int, float],
    ) -> None:
        """Put a trial that ended in an earlier run back, as `tell` left it."""
        self._study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[state],
                value=_optuna_value(state, value, values),
                params=dict(params),
                distributions=self._distributions(params),
                user_attrs={"trial_id": trial_id},
                intermediate_values=dict(values),
            )
        )

    def reopen(self, number: int, params: Mapping[str, Value], values: Mapping[int, float]) -> None:
        """Put back a trial that was still running when its study was left."""
        self._study.enqueue_trial(dict(params))
        self.ask(number)
        for epoch, value in values.items():
            self.report(number, epoch, value)

    def _distributions(self, params: Mapping[str, Value]) -> dict[str, BaseDistribution]:
        used: dict[str, BaseDistribution] = {}

        def note(name: str, domain: Domain) -> Value:
            used[name] = distribution(domain)
            return params[name]

        visit(self._space, note)
        return used


def _suggest(trial: optuna.trial.Trial, name: str, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        chosen: Value = trial.suggest_categorical(name, domain.labels)
        return chosen
    if isinstance(domain, Integer):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _optuna_value(state: TrialState, value: float | None, values: Mapping[int, float]) -> float | None:
    # Optuna gives a pruned trial its last intermediate value; a replayed one must look the same
    if state is TrialState.PRUNED and values:
        return values[max(values)]
    return value if state is TrialState.COMPLETE else None


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's name for a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.labels)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)

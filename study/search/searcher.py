"""The search of one cell: Optuna's ask and tell, with a sampler whose proposals survive a restart.

A proposal is a pure function of the study's seed, the trial's number and the results so far: the sampler is
re-seeded for each number, so a resumed study proposes what an uninterrupted one would have. First points, the points
of a grid and those of a space with few points are listed in advance. The Optuna journal in the study's folder serves
optuna-dashboard only: it is rewritten from the rows at each start and never read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from study.search.cma import propose_by_cma, select_numeric_domains
from study.search.samplers import CmaEs, Random, Sampler, Tpe, list_points_in_advance
from study.space.domains import Choice, Domain, Integer, Value, visit_domains
from study.space.params import Params
from study.trial import Direction, Link, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

_STATES = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.PRUNED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


class CellSearcher:
    """The search of one cell. Trials are identified by their number, which Optuna's equals unless rows were lost.

    `directions` are those of the selection metric and of further objectives, `seeds` one per trial, `first` the points
    to try first. With several objectives no intermediate values are reported, since Optuna accepts none. With a `lag`,
    trial n is proposed from the results of the trials 0 … n − lag alone, all of which must have ended.
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
        lag: int | None = None,
    ):
        self._lag = lag
        self._space, self._sampler, self._directions, self._seeds = space, sampler, directions, seeds
        self._start = first[0] if first else None
        self._listed: list[Params] = [*first, *list_points_in_advance(sampler, space, first, len(seeds), seeds[0])]
        self._open: dict[int, optuna.trial.Trial] = {}
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize" if direction == "max" else "minimize" for direction in directions],
            pruner=optuna.pruners.NopPruner(),
        )

    def ask(self, number: int) -> dict[str, Value]:
        """Open trial `number` and return its parameters, by domain name."""
        return self._open_trial(number, self._next_point(number))

    def report(self, number: int, epoch: int, value: float) -> None:
        """Report an intermediate value of an open trial."""
        if len(self._directions) == 1:
            self._open[number].report(value, epoch)

    def tell(
        self,
        number: int,
        trial_id: str,
        state: TrialState,
        values: Sequence[float] | None,
        link: Link | None = None,
        excess: Mapping[str, float] | None = None,
    ) -> None:
        """Close a trial: COMPLETE with its values, PRUNED with the values reported so far, or FAILED.

        `excess` has by how much it exceeds each limit, above 0 where it violates it: TPE then ranks it behind all
        others, by the sum of what is above 0.
        """
        trial = self._open.pop(number)
        for name, value in (excess or {}).items():
            trial.set_constraint(name, value)
        for name, value in _list_attributes(trial_id, link).items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, values if state is TrialState.COMPLETE else None, _STATES[state])

    def add_trial(
        self,
        trial_id: str,
        params: Params,
        state: TrialState,
        values: Sequence[float] | None,
        reported: Mapping[int, float],
        link: Link | None = None,
        excess: Mapping[str, float] | None = None,
    ) -> None:
        """Add a trial that finished in an earlier run, as `tell` left it; `reported` has its scores by epoch."""
        if len(self._directions) > 1:
            reported = {}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[state],
                values=_optuna_values(state, values, reported),
                params=dict(params),
                distributions=self._make_distributions(params),
                user_attrs=_list_attributes(trial_id, link),
                intermediate_values=dict(reported),
                constraints=dict(excess or {}),
            )
        )

    def open_trial(self, number: int, params: Params, reported: Mapping[int, float]) -> None:
        """Open a trial of given parameters, or one that an earlier run left unfinished, with its scores by epoch."""
        self._open_trial(number, params)
        for epoch, value in reported.items():
            self.report(number, epoch, value)

    def _next_point(self, number: int) -> Params | None:
        """Return the next point, or None where an Optuna sampler proposes it."""
        if number < len(self._listed):
            return self._listed[number]
        if isinstance(self._sampler, CmaEs):
            seen = self._study.get_trials(deepcopy=False)[: self._count_ended(number)]
            finished = [trial for trial in seen if trial.state.is_finished()]
            domains, direction = select_numeric_domains(self._space), self._directions[0]
            return propose_by_cma(self._sampler, domains, finished, direction, self._start, self._seed(number))
        return None

    def _open_trial(self, number: int, params: Params | None) -> dict[str, Value]:
        seed, tpe = self._seed(number), self._sampler if isinstance(self._sampler, Tpe) else None
        self._study.sampler = tpe.build(seed, self._count_ended(number)) if tpe else Random().build(seed)
        if params is not None:
            self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        visit_domains(self._space, lambda name, domain: _suggest(trial, name, domain))
        self._open[number] = trial
        return dict(trial.params)

    def _count_ended(self, number: int) -> int | None:
        """Return how many first trials the proposal of trial `number` is made from; None for all that have ended."""
        return None if self._lag is None else max(0, number - self._lag + 1)

    def _seed(self, number: int) -> int:
        return self._seeds[number] % 2**32

    def _make_distributions(self, params: Params) -> dict[str, BaseDistribution]:
        distributions: dict[str, BaseDistribution] = {}

        def pick(name: str, domain: Domain) -> Value:
            distributions[name] = to_distribution(domain)
            return params[name]

        visit_domains(self._space, pick)
        return distributions


def _list_attributes(trial_id: str, link: Link | None) -> dict[str, Any]:
    """Return the user attributes of a trial; those of a population name the parent and the epochs."""
    return {"trial_id": trial_id, **(asdict(link) if link else {})}


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
    # Optuna sets a pruned trial's value to its last intermediate value; an added trial must be equal
    if state is TrialState.PRUNED and reported:
        return [reported[max(reported)]]
    return values if state is TrialState.COMPLETE else None


def to_distribution(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution for a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.labels)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)

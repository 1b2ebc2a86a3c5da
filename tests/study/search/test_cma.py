"""CMA-ES: convergence, how it ranks trials, and the mapping to the unit cube."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import CmaEs, Random, integer, log_uniform, uniform
from study.search.cma import from_unit_cube, select_numeric_domains, to_unit_cube
from study.search.searcher import CellSearcher
from study.space.params import is_point_of, is_same_point
from study.trial import TrialState
from tests.study.search.test_searcher import run_one


def best_of_quadratic(sampler: CmaEs | Random, seed: int, trials: int = 50) -> float:
    """Return the lowest value of (a − 0.3)² + (log10 b + 2)²/9 + 4·(a − 0.3)·(log10 b + 2)/9 + (c − 30)²/10000."""
    space = {"a": uniform(0, 1), "b": log_uniform(1e-4, 1e-1), "c": integer(1, 100)}
    seeds = [1000 * seed + number for number in range(trials)]
    search = CellSearcher("cell", space, sampler, ["min"], seeds, optuna.storages.InMemoryStorage())
    found = []
    for number in range(trials):
        params = search.ask(number)
        a, b, c = params["a"] - 0.3, (math.log10(params["b"]) + 2) / 3, (params["c"] - 30) / 100
        found.append(a * a + b * b + a * b + c * c)
        search.tell(number, f"id{number}", TrialState.COMPLETE, [found[-1]])
    return min(found)


def test_cma_es_beats_random_search_on_a_quadratic() -> None:
    ratios = [best_of_quadratic(CmaEs(), seed) / best_of_quadratic(Random(), seed) for seed in range(11)]
    assert statistics.median(ratios) < 0.25


def test_cma_es_searches_a_single_domain() -> None:
    search = cma_over_x(40)
    found = [run_one(search, number)["x"] for number in range(40)]
    assert statistics.fmean(abs(x - 0.3) for x in found[-8:]) < 0.05


def late_proposals(outcome: Any) -> list[float]:
    """Return the last 8 of 40 proposals; `outcome` maps x to a trial's state and score."""
    search = cma_over_x(40)
    found = []
    for number in range(40):
        found.append(x := search.ask(number)["x"])
        state, score = outcome(x)
        search.report(number, 1, score)
        search.tell(number, f"id{number}", state, [score] if state is TrialState.COMPLETE else None)
    return found[-8:]


def cma_over_x(trials: int, sampler: CmaEs | None = None, first: Sequence[dict[str, Any]] = ()) -> CellSearcher:
    storage = optuna.storages.InMemoryStorage()
    return CellSearcher("cell", {"x": uniform(0, 1)}, sampler or CmaEs(), ["max"], range(trials), storage, first)


def test_cma_es_moves_away_from_failed_trials() -> None:
    late = late_proposals(lambda x: (TrialState.FAILED if x > 0.5 else TrialState.COMPLETE, x))
    assert 0.4 < statistics.fmean(late) <= 0.5


def test_cma_es_prefers_complete_trials_to_pruned_ones_with_a_better_score() -> None:
    late = late_proposals(lambda x: (TrialState.PRUNED, 10.0) if x > 0.5 else (TrialState.COMPLETE, 0.0))
    assert max(late) <= 0.5


def test_cma_es_ranks_pruned_trials_by_epochs_before_score() -> None:
    def last_proposal(epochs: dict[bool, int], scores: dict[bool, float]) -> float:
        search = cma_over_x(40)
        for number in range(40):
            x = search.ask(number)["x"]
            for epoch in range(1, epochs[x > 0.5] + 1):
                search.report(number, epoch, scores[x > 0.5])
            search.tell(number, f"id{number}", TrialState.PRUNED, None)
        return float(x)

    assert last_proposal({True: 3, False: 1}, {True: 0.0, False: 1.0}) > 0.5
    assert last_proposal({True: 2, False: 2}, {True: 0.0, False: 1.0}) < 0.5


def test_cma_es_skips_a_population_of_failed_trials() -> None:
    def fifth(state: TrialState) -> float:
        search = cma_over_x(5)
        for number in range(4):
            search.ask(number)
            search.tell(number, f"id{number}", state, [float(number)])
        return float(search.ask(4)["x"])

    untouched = float(cma_over_x(5).ask(4)["x"])
    assert fifth(TrialState.FAILED) == untouched != fifth(TrialState.COMPLETE)


def test_cma_es_starts_at_the_first_point_if_there_is_one() -> None:
    def drawn(first: list[dict[str, Any]]) -> float:
        search = cma_over_x(30, CmaEs(sigma=0.05), first)
        return statistics.fmean(search.ask(number)["x"] for number in range(1, 30))

    assert drawn([]) == pytest.approx(0.5, abs=0.05)
    assert drawn([{"x": 0.2}]) == pytest.approx(0.2, abs=0.05)


DOMAINS = st.one_of(
    st.tuples(st.floats(-100, 100), st.floats(0.01, 100)).map(lambda pair: uniform(pair[0], sum(pair))),
    st.tuples(st.floats(1e-6, 10), st.floats(1.1, 1e6)).map(lambda pair: log_uniform(pair[0], pair[0] * pair[1])),
    st.tuples(st.integers(1, 50), st.integers(1, 50), st.booleans()).map(
        lambda drawn: integer(drawn[0], drawn[0] + drawn[1], log=drawn[2])
    ),
)


@given(DOMAINS, st.floats(0, 1))
def test_unit_cube_maps_to_every_value_of_a_domain_and_no_other(domain: Any, share: float) -> None:
    space = select_numeric_domains({"x": domain})
    params = from_unit_cube(space, np.array([share]))
    assert is_point_of({"x": domain}, params)
    (again,) = to_unit_cube(space, params)
    assert 0 <= again <= 1
    assert is_same_point(from_unit_cube(space, np.array([again])), params)


def test_whole_numbers_get_equal_shares_of_the_unit_cube() -> None:
    space = select_numeric_domains({"x": integer(2, 5)})
    found = [from_unit_cube(space, np.array([share]))["x"] for share in np.linspace(0.001, 0.999, 4000)]
    assert [found.count(value) for value in (2, 3, 4, 5)] == pytest.approx([1000] * 4, abs=5)

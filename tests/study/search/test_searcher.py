"""Proposals: pure functions of seed, number and what was told, for every sampler; and what each sampler is for."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import Arm, Budget, CmaEs, Grid, Never, Random, Tpe, choice, integer, log_uniform, uniform
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.search.cma import from_unit_cube, select_numeric_domains, to_unit_cube
from study.search.searcher import CellSearcher
from study.space.params import build_grid, is_point_of, is_same_point
from study.study import Study
from study.trial import TrialState
from tests.study.toy import BASELINE, drive, open_flow, toy
from trainables.tasks.simulated import Extra, Fault, Simulated, SimulatedLoss

NUMERIC = SimulatedLoss(x=uniform(0, 1), y=log_uniform(0.1, 1), fault=Fault("exception", epoch=2, share=0.2))
CONDITIONAL = SimulatedLoss(
    x=uniform(0, 1), extra=choice(None, Extra(uniform(0, 1))), fault=Fault("exception", epoch=2, share=0.2)
)
FIRST = (SimulatedLoss(x=0.9, y=0.2, fault=NUMERIC.fault), SimulatedLoss(x=0.1, y=0.3, fault=NUMERIC.fault))
TASK = Simulated(teacher_epochs=0)
SAMPLERS = {
    "tpe": (Tpe(startup_trials=4), Arm("searched", CONDITIONAL)),
    "tpe-first": (Tpe(startup_trials=4), Arm("searched", NUMERIC, first=FIRST)),
    "random": (Random(), Arm("searched", CONDITIONAL)),
    "grid": (Grid(points=4), Arm("searched", CONDITIONAL)),
    "grid-first": (Grid(points=3), Arm("searched", NUMERIC, first=FIRST)),
    "cma": (CmaEs(population=4), Arm("searched", NUMERIC)),
    "cma-first": (CmaEs(), Arm("searched", NUMERIC, first=FIRST)),
}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def searching(name: str, **changes: Any) -> Study:
    sampler, arm = SAMPLERS[name]
    budget = Budget(trials=20, epochs=4, seeds=1)
    return toy((BASELINE, arm), sampler=sampler, task=TASK, budget=budget, **changes)


def proposals(flow: Coordinator, arm: str = "searched") -> list[dict[str, Any]]:
    rows = [row for row in flow.records.trials.rows() if row["phase"] == "search" and row["arm"] == arm]
    return [json.loads(row["params"]) for row in sorted(rows, key=lambda row: row["number"])]


def driven(study: Study, folder: Path, storage: optuna.storages.BaseStorage | None = None) -> Coordinator:
    flow = open_flow(study, folder, storage)
    flow.flush_seconds = 60.0  # nobody cuts this one
    assert drive(flow, folder)
    flow.flush()
    return flow


# -- proposals are pure functions --------------------------------------------------------------------------------------


@every_sampler
def test_equal_seeds_give_equal_proposals_and_other_seeds_others(tmp_path: Path, name: str) -> None:
    assert proposals(driven(searching(name), tmp_path)) == uninterrupted(searching(name))[0]
    assert uninterrupted(searching(name))[0] != uninterrupted(searching(name, seed=1))[0]


@cache
def uninterrupted(study: Study) -> tuple[list[Any], list[Any], list[dict[str, Any]]]:
    """A whole study's proposals, what Optuna knows of it, and its search rows."""
    storage = optuna.storages.InMemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        flow = driven(study, Path(folder), storage)
        rows = [row for row in flow.records.trials.rows() if row["phase"] == "search"]
        return proposals(flow), optuna_view(storage), sorted(rows, key=lambda row: row["number"])


@every_sampler
@pytest.mark.parametrize("stop_after", [1, 6, 13, 21])
def test_search_resumed_at_any_row_proposes_what_an_uninterrupted_one_does(
    tmp_path: Path, name: str, stop_after: int
) -> None:
    cut = open_flow(searching(name), tmp_path)
    assert not drive(cut, tmp_path, rows=stop_after)
    resumed = driven(searching(name), tmp_path, journal := optuna.storages.InMemoryStorage())
    assert (proposals(resumed), optuna_view(journal)) == uninterrupted(searching(name))[:2]


def optuna_view(storage: optuna.storages.InMemoryStorage) -> list[Any]:
    study = optuna.load_study(study_name="student / searched", storage=storage)
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in study.trials]


@every_sampler
def test_every_proposal_lies_in_the_space_and_all_states_occur(name: str) -> None:
    study = searching(name)
    found, _, rows = uninterrupted(study)
    assert all(is_point_of(study.find_arm("searched").loss, params) for params in found)
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED", "FAILED"}


@every_sampler
def test_more_trials_later_go_on_as_if_they_had_been_planned(name: str) -> None:
    def searched(trials: int) -> list[Any]:
        sampler, arm = SAMPLERS[name]
        storage = optuna.storages.InMemoryStorage()
        search = CellSearcher("cell", arm.loss, sampler, ["max"], range(trials), storage, arm.first_points)
        return [run_one(search, number) for number in range(trials)]

    assert searched(7) == searched(11)[:7]


def run_one(search: CellSearcher, number: int) -> dict[str, Any]:
    params = search.ask(number)
    search.tell(number, f"id{number}", TrialState.COMPLETE, [-((params["x"] - 0.3) ** 2)])
    return params


# -- CMA-ES ------------------------------------------------------------------------------------------------------------


def best_of_quadratic(sampler: CmaEs | Random, seed: int, trials: int = 50) -> float:
    """The lowest (a − 0.3)² + (log10 b + 2)²/9 + 4·(a − 0.3)·(log10 b + 2)/9 + (c − 30)²/10000 found."""
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
    """Where CMA-ES looks at last; `outcome` gives a trial's state and its score by x."""
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


def test_cma_es_turns_away_from_failed_trials() -> None:
    late = late_proposals(lambda x: (TrialState.FAILED if x > 0.5 else TrialState.COMPLETE, x))
    assert 0.4 < statistics.fmean(late) <= 0.5


def test_cma_es_prefers_completed_trials_to_stopped_ones_of_a_better_score() -> None:
    late = late_proposals(lambda x: (TrialState.PRUNED, 10.0) if x > 0.5 else (TrialState.COMPLETE, 0.0))
    assert max(late) <= 0.5


def test_cma_es_ranks_stopped_trials_by_how_far_they_came_before_their_score() -> None:
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


def test_cma_es_passes_over_a_population_in_which_all_failed() -> None:
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
def test_cube_holds_every_value_of_a_domain_and_none_beside_it(domain: Any, share: float) -> None:
    space = select_numeric_domains({"x": domain})
    params = from_unit_cube(space, np.array([share]))
    assert is_point_of({"x": domain}, params)
    (again,) = to_unit_cube(space, params)
    assert 0 <= again <= 1
    assert is_same_point(from_unit_cube(space, np.array([again])), params)


def test_whole_numbers_get_equal_shares_of_the_cube() -> None:
    space = select_numeric_domains({"x": integer(2, 5)})
    found = [from_unit_cube(space, np.array([share]))["x"] for share in np.linspace(0.001, 0.999, 4000)]
    assert [found.count(value) for value in (2, 3, 4, 5)] == pytest.approx([1000] * 4, abs=5)


# -- grid --------------------------------------------------------------------------------------------------------------


def test_grid_search_runs_each_point_once_and_no_more_trials() -> None:
    found = uninterrupted(searching("grid"))[0]
    expected = build_grid(CONDITIONAL, 4)
    assert len(expected) == 4 + 4 * 4
    assert len(found) == len(expected)
    assert all(point in found for point in expected)


def test_grid_search_is_shuffled_by_seed() -> None:
    orders = [SAMPLERS["grid"][0].list_points(CONDITIONAL, [], seed) for seed in (1, 1, 2)]  # type: ignore[union-attr]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != build_grid(CONDITIONAL, 4)


def test_grid_leaves_out_what_is_tried_first(tmp_path: Path) -> None:
    on, off = (SimulatedLoss(x=x, extra=Extra(1 / 3), fault=CONDITIONAL.fault) for x in (1 / 3, 0.35))
    arm = Arm("searched", CONDITIONAL, first=(on, off))
    budget = Budget(trials=21, epochs=2, seeds=1)
    study = toy((BASELINE, arm), sampler=Grid(points=4), task=TASK, budget=budget)
    found = proposals(driven(study, tmp_path))
    assert study.count_trials(arm) == len(found) == 21
    assert [params["x"] for params in found[:2]] == [1 / 3, 0.35]
    assert not any(is_same_point(one, other) for number, one in enumerate(found) for other in found[:number])


@pytest.mark.parametrize(
    ("trials", "first", "message"),
    [
        (10, (), r"the grid of arm 'searched' has 20 points, budget.trials is 10: raise it to 20"),
        (20, (0.35,), r"has 20 points and 1 first ones beside it, budget.trials is 20: raise it to 21"),
    ],
)
def test_grid_larger_than_the_budget_is_refused(trials: int, first: tuple[float, ...], message: str) -> None:
    losses = tuple(SimulatedLoss(x=x, fault=CONDITIONAL.fault) for x in first)
    with pytest.raises(InputError, match=message) as error:
        toy((BASELINE, Arm("searched", CONDITIONAL, first=losses)), sampler=Grid(4), budget=Budget(trials, 2, 1))
    assert "\n" not in str(error.value)


def test_grid_of_millions_is_refused_at_once() -> None:
    wide = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), gain=uniform(0, 1), extra=Extra(uniform(0, 1)))
    with pytest.raises(InputError, match="has 100000000 points"):
        toy((BASELINE, Arm("searched", wide)), sampler=Grid(100))


# -- first points ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tpe-first", "cma-first", "grid-first"])
def test_first_points_are_the_first_trials_and_count(name: str) -> None:
    found = uninterrupted(searching(name))[0]
    assert found[:2] == [{"x": 0.9, "y": 0.2}, {"x": 0.1, "y": 0.3}]
    assert len(found) == (9 + 2 if name == "grid-first" else 20)


# -- several objectives ------------------------------------------------------------------------------------------------


def trading_off(name: str) -> Study:
    return searching(name, objectives=("val/cost",), stopping=Never())


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
@pytest.mark.parametrize("stop_after", [3, 30])
def test_objectives_are_all_told_and_all_restored(tmp_path: Path, name: str, stop_after: int) -> None:
    cut = open_flow(trading_off(name), tmp_path)
    assert not drive(cut, tmp_path, rows=stop_after)
    resumed = driven(trading_off(name), tmp_path, storage := optuna.storages.InMemoryStorage())
    found, view, rows = uninterrupted(trading_off(name))
    assert (proposals(resumed), optuna_view(storage)) == (found, view)
    told = optuna.load_study(study_name="student / searched", storage=storage)
    assert [direction.name for direction in told.directions] == ["MAXIMIZE", "MINIMIZE"]
    complete = [trial for trial in told.trials if trial.state.name == "COMPLETE"]
    assert len(complete) > 10
    for trial in complete:
        assert trial.values == [rows[trial.number]["val/accuracy"], rows[trial.number]["val/cost"]]


def test_metric_alone_decides_what_is_confirmed(tmp_path: Path) -> None:
    flow = driven(trading_off("tpe"), tmp_path)
    rows = flow.records.trials.rows()
    complete = [row for row in rows if row["phase"] == "search" and row["state"] == "COMPLETE"]
    best = max(complete, key=lambda row: row["val/accuracy"])
    confirmed = {row["params"] for row in rows if row["phase"] == "confirm" and row["arm"] == "searched"}
    assert confirmed == {best["params"]}


class CostLess(Simulated):
    def _row(self, *arguments: Any) -> Any:
        row = super()._row(*arguments)
        row["metrics"]["val/cost"] = float("inf")
        return row


def test_objective_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    study = dataclasses.replace(trading_off("random"), task=CostLess(teacher_epochs=0))
    flow = open_flow(study, tmp_path)
    drive(flow, tmp_path)
    reasons = {row["reason"] for row in flow.records.trials.rows() if row["phase"] == "search"}
    assert reasons == {"val/cost is inf in epoch 1"}


def test_search_of_two_objectives_finds_both_ends_of_the_front() -> None:
    """Accuracy is highest at x = 0.3, cost lowest at x = 0.7; a search for accuracy alone has no reason to go there."""

    def late(directions: list[Any]) -> list[float]:
        search = CellSearcher(
            "cell", {"x": uniform(0, 1)}, Tpe(), directions, range(60), optuna.storages.InMemoryStorage()
        )
        found = []
        for number in range(60):
            found.append(search.ask(number)["x"])
            values = [-((found[-1] - 0.3) ** 2), (found[-1] - 0.7) ** 2][: len(directions)]
            search.tell(number, f"id{number}", TrialState.COMPLETE, values)
        return found[30:]

    assert sum(x > 0.55 for x in late(["max", "min"])) > 5
    assert sum(x > 0.55 for x in late(["max"])) <= 2


# -- what samplers refuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tpe(startup_trials=0), "Tpe: startup_trials is 0; allowed is a whole number, at least 1"),
        (lambda: Tpe(candidates=2.5), "Tpe: candidates is 2.5"),  # type: ignore[arg-type]
        (lambda: Tpe(constant_liar=1), "Tpe: constant_liar is 1; allowed are True and False"),  # type: ignore[arg-type]
        (lambda: Tpe(multivariate=False), "group is True and multivariate False"),
        (lambda: Grid(points=1), "Grid: points is 1; allowed is a whole number, at least 2"),
        (lambda: CmaEs(sigma=0), "CmaEs: sigma is 0"),
        (lambda: CmaEs(sigma=float("nan")), "CmaEs: sigma is nan"),
        (lambda: CmaEs(population=3), "CmaEs: population is 3; allowed is a whole number, at least 4"),
    ],
)
def test_bad_sampler_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_tpe_hands_every_argument_on() -> None:
    built = Tpe(startup_trials=3, candidates=7, multivariate=True, group=False, constant_liar=False).build(5)
    assert (built._n_startup_trials, built._n_ei_candidates) == (3, 7)  # type: ignore[attr-defined]
    assert (built._multivariate, built._group, built._constant_liar) == (True, False, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_search_of_a_conditional_space_visits_every_option(name: str) -> None:
    tried = {key for params in uninterrupted(searching(name))[0] for key in params}
    assert tried == {"x", "extra", "extra.Extra.z"}

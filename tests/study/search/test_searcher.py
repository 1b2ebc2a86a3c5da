"""CellSearcher: proposals are a pure function of the seed, the number and the trials study, for every sampler."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import Arm, Budget, CmaEs, Grid, Never, Random, Tpe, choice, log_uniform, uniform
from study.arm import Cell
from study.engine.coordinator import Coordinator
from study.search.searcher import CellSearcher
from study.space.params import build_grid, is_point_of, is_same_point
from study.study import Study
from study.trial import TrialState
from tests.study.toy import BASELINE, drive, open_coordinator, toy
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


def make_study(name: str, **changes: Any) -> Study:
    sampler, arm = SAMPLERS[name]
    budget = Budget(trials=20, epochs=4, seeds=1)
    return toy((BASELINE, arm), sampler=sampler, task=TASK, budget=budget, **changes)


def proposals(coordinator: Coordinator, arm: str = "searched") -> list[dict[str, Any]]:
    rows = [
        row for row in coordinator.writer.records.trials.read_rows() if row["phase"] == "search" and row["arm"] == arm
    ]
    return [json.loads(row["params"]) for row in sorted(rows, key=lambda row: row["number"])]


def run_study(study: Study, folder: Path, storage: optuna.storages.BaseStorage | None = None) -> Coordinator:
    coordinator = open_coordinator(study, folder, storage)
    assert drive(coordinator, folder)
    return coordinator


@every_sampler
def test_equal_seeds_give_equal_proposals_and_other_seeds_others(tmp_path: Path, name: str) -> None:
    assert proposals(run_study(make_study(name), tmp_path)) == run_uninterrupted(make_study(name))[0]
    assert run_uninterrupted(make_study(name))[0] != run_uninterrupted(make_study(name, seed=1))[0]


@cache
def run_uninterrupted(study: Study) -> tuple[list[Any], list[Any], list[dict[str, Any]]]:
    """Return an uninterrupted study's proposals, its trials in Optuna and its search rows."""
    storage = optuna.storages.InMemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        coordinator = run_study(study, Path(folder), storage)
        rows = [row for row in coordinator.writer.records.trials.read_rows() if row["phase"] == "search"]
        return proposals(coordinator), optuna_view(storage), sorted(rows, key=lambda row: row["number"])


@every_sampler
@pytest.mark.parametrize("stop_after", [1, 6, 13, 21])
def test_search_resumed_at_any_row_proposes_what_an_uninterrupted_one_does(
    tmp_path: Path, name: str, stop_after: int
) -> None:
    cut = open_coordinator(make_study(name), tmp_path)
    assert not drive(cut, tmp_path, rows=stop_after)
    resumed = run_study(make_study(name), tmp_path, journal := optuna.storages.InMemoryStorage())
    assert (proposals(resumed), optuna_view(journal)) == run_uninterrupted(make_study(name))[:2]


def optuna_view(storage: optuna.storages.InMemoryStorage) -> list[Any]:
    study = optuna.load_study(study_name="student / searched", storage=storage)
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in study.trials]


@every_sampler
def test_every_proposal_lies_in_the_space_and_all_states_occur(name: str) -> None:
    study = make_study(name)
    found, _, rows = run_uninterrupted(study)
    assert all(is_point_of(study.find_arm("searched").loss, params) for params in found)
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED", "FAILED"}


@every_sampler
def test_extended_search_proposes_what_a_longer_one_would_have(name: str) -> None:
    def searched(trials: int) -> list[Any]:
        sampler, arm = SAMPLERS[name]
        storage = optuna.storages.InMemoryStorage()
        search = CellSearcher("cell", arm.loss, sampler, ["max"], range(trials), storage, Cell(None, arm).first_points)
        return [run_one(search, number) for number in range(trials)]

    assert searched(7) == searched(11)[:7]


def run_one(search: CellSearcher, number: int) -> dict[str, Any]:
    params = search.ask(number)
    search.tell(number, f"id{number}", TrialState.COMPLETE, [-((params["x"] - 0.3) ** 2)])
    return params


def test_grid_search_runs_each_point_once_and_no_more_trials() -> None:
    found = run_uninterrupted(make_study("grid"))[0]
    expected = build_grid(CONDITIONAL, 4)
    assert len(expected) == 4 + 4 * 4
    assert len(found) == len(expected)
    assert all(point in found for point in expected)


def test_grid_leaves_out_first_points(tmp_path: Path) -> None:
    on, off = (SimulatedLoss(x=x, extra=Extra(1 / 3), fault=CONDITIONAL.fault) for x in (1 / 3, 0.35))
    arm = Arm("searched", CONDITIONAL, first=(on, off))
    budget = Budget(trials=21, epochs=2, seeds=1)
    study = toy((BASELINE, arm), sampler=Grid(points=4), task=TASK, budget=budget)
    found = proposals(run_study(study, tmp_path))
    assert study.count_trials(study.find_cell("student / searched")) == len(found) == 21
    assert [params["x"] for params in found[:2]] == [1 / 3, 0.35]
    assert not any(is_same_point(one, other) for number, one in enumerate(found) for other in found[:number])


@pytest.mark.parametrize("name", ["tpe-first", "cma-first", "grid-first"])
def test_first_points_are_the_first_trials_and_count(name: str) -> None:
    found = run_uninterrupted(make_study(name))[0]
    assert found[:2] == [{"x": 0.9, "y": 0.2}, {"x": 0.1, "y": 0.3}]
    assert len(found) == (9 + 2 if name == "grid-first" else 20)


def make_trade_off_study(name: str) -> Study:
    return make_study(name, objectives=("val/cost",), stopping=Never())


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
@pytest.mark.parametrize("stop_after", [3, 30])
def test_all_objectives_are_reported_and_restored(tmp_path: Path, name: str, stop_after: int) -> None:
    cut = open_coordinator(make_trade_off_study(name), tmp_path)
    assert not drive(cut, tmp_path, rows=stop_after)
    resumed = run_study(make_trade_off_study(name), tmp_path, storage := optuna.storages.InMemoryStorage())
    found, view, rows = run_uninterrupted(make_trade_off_study(name))
    assert (proposals(resumed), optuna_view(storage)) == (found, view)
    study = optuna.load_study(study_name="student / searched", storage=storage)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(complete) > 10
    for trial in complete:
        assert trial.values == [rows[trial.number]["val/accuracy"], rows[trial.number]["val/cost"]]


def test_metric_alone_decides_the_only_point_that_is_confirmed(tmp_path: Path) -> None:
    coordinator = run_study(dataclasses.replace(make_trade_off_study("tpe"), confirm_front=1), tmp_path)
    rows = coordinator.writer.records.trials.read_rows()
    complete = [row for row in rows if row["phase"] == "search" and row["state"] == "COMPLETE"]
    best = max(complete, key=lambda row: row["val/accuracy"])
    confirmed = {row["params"] for row in rows if row["phase"] == "confirm" and row["arm"] == "searched"}
    assert confirmed == {best["params"]}


class CostLess(Simulated):
    def _make_result(self, *arguments: Any) -> Any:
        row = super()._make_result(*arguments)
        row["metrics"]["val/cost"] = float("inf")
        return row


def test_objective_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    study = dataclasses.replace(make_trade_off_study("random"), task=CostLess(teacher_epochs=0))
    coordinator = open_coordinator(study, tmp_path)
    drive(coordinator, tmp_path)
    reasons = {row["reason"] for row in coordinator.writer.records.trials.read_rows() if row["phase"] == "search"}
    assert reasons == {"val/cost is inf in epoch 1"}


def test_search_of_two_objectives_finds_both_ends_of_the_front() -> None:
    """Accuracy is highest at x = 0.3, cost lowest at x = 0.7; a search for accuracy alone never needs to go there."""

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


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_search_of_a_conditional_space_visits_every_option(name: str) -> None:
    tried = {key for params in run_uninterrupted(make_study(name))[0] for key in params}
    assert tried == {"x", "extra", "extra.Extra.z"}

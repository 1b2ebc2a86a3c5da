"""The front of a search with several objectives is confirmed, each point at its own student in all arms compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from study import Arm, Budget, Never, integer, uniform
from study.cli.dry_run.plan import format_plan
from study.engine.confirm_points import match_student
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.search.front import find_front, measure_distance, spread_front
from study.study import Study
from tests.study.engine.test_student_costs import EXACT, STEADY, read_rows, width_of
from tests.study.toy import drive, open_coordinator, toy
from trainables.tasks.simulated import SimulatedLoss, SimulatedStudent

PLAIN = Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)
BETTER = Arm("better", SimulatedLoss(gain=0.05))
TUNED_PLAIN = Arm("tuned plain", SimulatedLoss(x=uniform(0, 1)), baseline=True)
TUNED = Arm("tuned", SimulatedLoss(x=uniform(0, 1), gain=0.05))
LATENCY = "student/latency_ms"


@dataclasses.dataclass(frozen=True)
class LevelStudent(SimulatedStudent):
    """A student that scores the same whatever its width."""

    @property
    def shortfall(self) -> float:
        return 0.0


def study_of(width: Any, *arms: Arm, **changes: Any) -> Study:
    parts = {
        "arms": arms,
        "task": STEADY,
        "students": (SimulatedStudent("net", width),),
        "objectives": (LATENCY,),
        "stopping": Never(),
    }
    return dataclasses.replace(toy(), **parts | changes)


def run(study: Study, folder: Path, rows: int | None = None) -> Coordinator:
    coordinator = open_coordinator(study, folder)
    drive(coordinator, folder, rows)
    return coordinator


def read_confirmed(coordinator: Coordinator, arm: str) -> dict[int, dict[str, Any]]:
    """Return the parameters that an arm has confirmed with all seeds, by point."""
    rows = [row for row in read_rows(coordinator, "confirm") if row["arm"] == arm and row["state"] == "COMPLETE"]
    found: dict[int, set[str]] = {}
    for row in rows:
        found.setdefault(row["point"], set()).add(row["params"])
    assert all(len(params) == 1 for params in found.values())
    assert sorted((row["point"], row["number"]) for row in rows) == [(point, n) for point in found for n in range(3)]
    return {point: json.loads(params.pop()) for point, params in found.items()}


# -- the front ---------------------------------------------------------------------------------------------------------

values = some.lists(some.tuples(some.integers(0, 4), some.integers(1, 5)), min_size=1, max_size=30)


@given(values)
def test_front_is_what_brute_force_finds(points: list[tuple[int, int]]) -> None:
    """Of equal points the first; best by the first objective, which is maximised, first."""

    def is_beaten(number: int) -> bool:
        score, cost = points[number]
        return any(
            (s >= score and c <= cost and (s, c) != (score, cost)) or ((s, c) == (score, cost) and other < number)
            for other, (s, c) in enumerate(points)
        )

    front = find_front(dict(enumerate(points)), ["max", "min"])
    assert sorted(front) == [number for number in range(len(points)) if not is_beaten(number)]
    assert [points[number][0] for number in front] == sorted((points[number][0] for number in front), reverse=True)


@given(values)
def test_more_points_of_a_front_add_to_fewer(points: list[tuple[int, int]]) -> None:
    by_number = dict(enumerate(points))
    front = find_front(by_number, ["max", "min"])
    spread = [spread_front(front, by_number, most) for most in (1, 2, 3, 99)]
    assert spread[0] == front[:1]
    for fewer, more in pairwise(spread):
        assert more[: len(fewer)] == fewer
    assert sorted(spread[-1]) == sorted(front)
    assert set(spread[1]) == {front[0], front[-1]}, "both ends"


def test_spread_is_even_on_a_logarithmic_scale() -> None:
    costs = {n: (n, float(n)) for n in (1, 2, 3, 4, 50, 90, 100)}
    assert spread_front(find_front(costs, ["max", "min"]), costs, 3) == [100, 1, 4]
    assert measure_distance(1, 10) == pytest.approx(measure_distance(10, 100))
    assert measure_distance(-1, 1) == 2


# -- what is confirmed -------------------------------------------------------------------------------------------------


def test_known_front_is_confirmed_spread_by_cost(tmp_path: Path) -> None:
    """Accuracy and latency both rise with the width, so that every width is on the front."""
    coordinator = run(study_of(integer(1, 8), PLAIN, BETTER), tmp_path)
    assert coordinator.done
    for arm in ("plain", "better"):
        points = read_confirmed(coordinator, arm)
        assert [points[n]["student.width"] for n in range(3)] == [8, 1, 3]
    for row in read_rows(coordinator, "confirm"):
        assert row[LATENCY] == width_of(row)
        assert row["test/accuracy"] is not None
    seeds = {(row["number"], row["seed"]) for row in read_rows(coordinator, "confirm")}
    assert len(seeds) == 3, "all points and arms share seeds"


@pytest.mark.parametrize("size", [1, 2, 99])
def test_number_of_points_is_a_choice(size: int, tmp_path: Path) -> None:
    coordinator = run(study_of(integer(1, 8), PLAIN, confirm_front=size), tmp_path)
    assert coordinator.done
    assert len(read_confirmed(coordinator, "plain")) == min(size, 8)


def test_best_of_equal_scores_is_the_cheapest(tmp_path: Path) -> None:
    """A narrow student that scores as a wide one is on the front, and the wide one is not."""

    students = (LevelStudent("net", integer(2, 8)),)
    coordinator = run(dataclasses.replace(study_of(integer(2, 8), PLAIN), students=students), tmp_path)
    assert {point: params["student.width"] for point, params in read_confirmed(coordinator, "plain").items()} == {0: 2}


def test_points_are_compared_with_the_same_student_at_the_nearest_settings(tmp_path: Path) -> None:
    coordinator = run(study_of(integer(1, 4000), TUNED_PLAIN, TUNED), tmp_path)
    assert coordinator.done
    tuned, plain = (read_confirmed(coordinator, arm) for arm in ("tuned", "tuned plain"))
    assert len(tuned) <= 3
    widths = [params["student.width"] for params in plain.values()]
    assert {params["student.width"] for params in tuned.values()} <= set(widths)
    assert len(widths) == len(set(widths))
    base = coordinator.cells["net / tuned plain"].search
    front = find_front(base.values, ["max", "min"])
    own = spread_front(front, base.values, 3)
    assert [plain[point] for point in range(len(own))] == [base.params[number] for number in own]
    others = [plain[point] for point in range(len(own), len(plain))]
    assert others, "no width of this seed is chosen by both"
    for params in others:
        distances = {n: measure_distance(base.values[n][1], params["student.width"]) for n in front}
        nearest = min(front, key=lambda n: distances[n])
        assert params["x"] == base.params[nearest]["x"]


def test_student_that_the_other_arm_has_searched_is_compared_by_its_own_trial(tmp_path: Path) -> None:
    """Ten trials of two widths: both arms have tried both, though one of them may be on neither front."""
    study = study_of(integer(1, 2), TUNED_PLAIN, TUNED, budget=Budget(trials=10, epochs=4, seeds=3))
    coordinator = run(study, tmp_path)
    for cell in coordinator.cells.values():
        tried = [dict(params) for params in cell.search.params.values()]
        assert all(dict(params) in tried for params in cell.points or [])


def test_point_that_was_tried_twice_is_confirmed_once(tmp_path: Path) -> None:
    """Noise may put both trials of equal settings on the front."""
    cell = run(study_of(integer(1, 3), PLAIN), tmp_path).cells["net / plain"]
    cell.search.params = {0: {"student.width": 1}, 1: {"student.width": 1}, 2: {"student.width": 2}}
    cell.search.values = {0: (0.8, 3.0), 1: (0.7, 1.0), 2: (0.75, 2.0)}
    assert cell.search.select_points() == [{"student.width": 1}, {"student.width": 2}]


def test_student_of_another_branch_takes_no_settings_of_the_branch_left(tmp_path: Path) -> None:
    study = study_of(integer(1, 3), PLAIN)
    cell = run(study, tmp_path).cells["net / plain"]
    cell.search.params = {0: {"x": 0.3, "student.body": "b", "student.body.b.depth": 5}}
    cell.search.values = {0: (0.8, 3.0)}
    other = {"student.body": "a", "student.body.a.depth": 2}
    assert match_student(study, cell, other, 3.0) == {"x": 0.3, **other}


# -- resumed and extended ----------------------------------------------------------------------------------------------


def list_confirmed(coordinator: Coordinator) -> list[tuple[Any, ...]]:
    names = ("cell", "point", "number", "trial_id", "params", "state", "test/accuracy", LATENCY)
    return [tuple(row[name] for name in names) for row in read_rows(coordinator, "confirm")]


def sort(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: row[:3])


@pytest.mark.parametrize("stop_after", [10, 55, 110, 125, 150])
def test_killed_study_confirms_the_front_of_an_uninterrupted_one(stop_after: int, tmp_path: Path) -> None:
    study = study_of(integer(1, 4000), TUNED_PLAIN, TUNED)
    whole = run(study, tmp_path / "whole")
    run(study, tmp_path / "cut", stop_after)
    resumed = run(study, tmp_path / "cut")
    assert resumed.done
    assert sort(list_confirmed(resumed)) == sort(list_confirmed(whole))


@pytest.mark.parametrize("stop_after", [60, 120])
def test_front_of_measured_latencies_stays_when_they_are_not_measured_again(stop_after: int, tmp_path: Path) -> None:
    """Neighbouring widths of the task with noise change places from measurement to measurement."""
    study = study_of(integer(1, 9), PLAIN, TUNED_PLAIN, task=EXACT, confirm_front=99)
    cut = run(study, tmp_path, stop_after)
    before = {name: dict(cell.search.values) for name, cell in cut.cells.items()}
    resumed = run(study, tmp_path)
    assert resumed.done
    for name, cell in resumed.cells.items():
        assert before[name].items() <= cell.search.values.items()
    assert not [row for row in read_rows(resumed, "confirm") if row["state"] != "COMPLETE"]


def test_finished_study_opens_as_finished(tmp_path: Path) -> None:
    study = study_of(integer(1, 9), PLAIN, TUNED_PLAIN, task=EXACT)
    run(study, tmp_path)
    again = open_coordinator(study, tmp_path)
    assert again.done
    assert again.next_trial() is None


def test_extended_search_confirms_what_it_then_chooses(tmp_path: Path) -> None:
    small, larger = (
        study_of(integer(1, 4000), TUNED_PLAIN, TUNED, budget=Budget(trials=n, epochs=4, seeds=3)) for n in (3, 9)
    )
    run(small, tmp_path / "small")
    extended, whole = run(larger, tmp_path / "small"), run(larger, tmp_path / "whole")
    assert extended.done
    counted = [row for row in list_confirmed(extended) if row[5] != "SUPERSEDED"]
    assert sort(counted) == sort(list_confirmed(whole))
    assert len(counted) < len(list_confirmed(extended))


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_plan_says_how_many_runs_there_are_at_most(tmp_path: Path) -> None:
    study = study_of(integer(1, 4000), TUNED_PLAIN, TUNED)
    lines = format_plan(study, {}, [])
    assert (
        "  net / tuned plain: search 9 trials, then confirm 3 seeds of at most 3 points of its front, and of at most 3 "
        "students that are compared with it" in lines
    )
    assert "  net / tuned: search 9 trials, then confirm 3 seeds of at most 3 points of its front" in lines
    assert "2 cells, at most 45 trials (18 search, at most 27 confirm), at most 270 epochs" in lines
    assert study.max_tests == 1 + 3
    coordinator = run(study, tmp_path)
    assert len(read_rows(coordinator, "confirm")) <= 27


def test_study_without_objectives_confirms_one_point() -> None:
    study = toy()
    assert [study.count_confirm_points(cell) for cell in study.cells] == [1, 1]
    assert study.max_tests == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confirm_front": 0}, "confirm_front is 0; allowed is a whole number, at least 1"),
        ({"confirm_front": 2.0}, "confirm_front is 2.0"),
        ({"confirm_front": 2, "objectives": ()}, "confirm_front is 2 without objectives: name them"),
    ],
)
def test_number_of_points_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study_of(integer(1, 8), PLAIN, **change)

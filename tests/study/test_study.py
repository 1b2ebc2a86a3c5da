"""Study, Arm and Budget: comparisons, cells, budgets, descriptions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from study import Arm, Budget
from study.errors import InputError
from study.identity import describe, digest, find_differences
from study.preflight import check_inputs
from tests.study.toy import BASELINE, SEARCHED, toy
from trainables.tasks.simulated import Simulated, SimulatedLoss, SimulatedStudent


@pytest.mark.parametrize("name", ["trials", "epochs", "seeds"])
@pytest.mark.parametrize("value", [0, -1])
def test_budget_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; allowed is a whole number, at least 1"):
        Budget(**({"trials": 1, "epochs": 1, "seeds": 1} | {name: value}))


@pytest.mark.parametrize("name", ["trials", "epochs", "seeds"])
def test_budget_of_a_typing_error_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 1000000000; allowed is .* at most 100?,000"):
        Budget(**{"trials": 1, "epochs": 1, "seeds": 1, name: 10**9})


def test_arms_are_compared_with_the_first_baseline_unless_they_say_otherwise() -> None:
    second = Arm("second", SimulatedLoss(), baseline=True)
    study = toy((BASELINE, second, SEARCHED, Arm("other", SimulatedLoss(), versus="second")))
    versus = {arm.name: [found.name for found in study.find_comparisons(arm)] for arm in study.arms}
    assert versus == {"plain": [], "second": ["plain"], "searched": ["plain"], "other": ["second"]}


def test_arm_may_be_for_some_students_only() -> None:
    students = (SimulatedStudent(), SimulatedStudent("yardstick"))
    study = toy(students=students, arms=(BASELINE, dataclasses.replace(SEARCHED, students=("student",))))
    assert [cell.name for cell in study.cells] == ["student / plain", "student / searched", "yardstick / plain"]


def test_losses_are_checked_with_the_students_of_their_arms_alone(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Listening(Simulated):
        def check(
            self, students: Any, losses: Any, storage: Path, trained_on: Any = (), recipes: Any = None
        ) -> dict[str, Any]:
            heard.append((students[0].name, {loss.gain for loss in losses}))
            return {}

    heard: list[Any] = []
    study = toy(
        task=Listening(),
        students=(SimulatedStudent(), SimulatedStudent("yardstick")),
        arms=(BASELINE, Arm("better", SimulatedLoss(gain=0.2), students=("student",))),
    )
    check_inputs(study, tmp_path)
    assert heard == [("student", {0.0, 0.2}), ("yardstick", {0.0})]


def test_description_leaves_out_where_and_keeps_what() -> None:
    from trainables.data.cifar import Cifar

    assert describe(Cifar(10, Path("/a"))) == describe(Cifar(10, Path("/b")))
    assert describe(Cifar(10)) == {"is": "Cifar", "from": "trainables", "classes": 10}
    assert digest(Cifar(10)) != digest(Cifar(100))


def test_differences_name_each_changed_leaf() -> None:
    old, new = describe(toy()), describe(toy(seed=5, budget=Budget(9, 7, 3)))
    assert list(find_differences(old, new)) == ["budget.epochs: 6 → 7", "seed: 0 → 5"]
    assert list(find_differences(old, old)) == []


@pytest.mark.parametrize("value", ["3", 2.5, None, True])
def test_budget_of_something_else_than_a_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="allowed is a whole number"):
        Budget(trials=value, epochs=1, seeds=1)

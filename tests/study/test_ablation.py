"""The study of the path from published to searched settings."""

from __future__ import annotations

from typing import Any

import pytest

from study import Arm, choice, integer, uniform
from study.ablation import make_ablation
from study.errors import InputError
from study.study import Study
from tests.study.toy import BASELINE, SEARCHED, toy
from trainables import DKD, Staircase
from trainables.tasks.simulated import SimulatedLoss

CELL = "student / searched"
LOSS = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), gain=0.05)
ARM = Arm("searched", LOSS, first=(SimulatedLoss(x=0.25, y=0.5, gain=0.05),))
FOUND = {"y": 0.75, "x": 0.125}


@pytest.fixture
def searched() -> Study:
    return toy((BASELINE, ARM))


def test_each_arm_changes_one_setting_more_and_is_compared_with_the_one_before(searched: Study) -> None:
    path = make_ablation(searched, CELL, FOUND)
    assert [(arm.name, arm.loss.y, arm.loss.x, arm.versus) for arm in path.arms] == [
        ("published", 0.5, 0.25, None),
        ("y 0.5 → 0.75", 0.75, 0.25, "published"),
        ("x 0.25 → 0.125", 0.75, 0.125, "y 0.5 → 0.75"),
    ]
    assert [arm.baseline for arm in path.arms] == [True, False, False]
    assert not any(cell.is_searched for cell in path.cells)
    assert path.arms[-1].loss == searched.find_cell(CELL).configure(FOUND).loss


def test_path_is_scored_on_validation_with_the_seeds_of_the_study(searched: Study) -> None:
    path = make_ablation(searched, CELL, FOUND, seeds=5)
    assert (path.name, path.confirm_on, path.budget.seeds) == ("toy-ablation", "train", 5)
    assert path.derive_trial_seed("confirm", 2) == searched.derive_trial_seed("confirm", 2)
    assert make_ablation(searched, CELL, FOUND).budget.seeds == searched.budget.seeds


def test_settings_that_did_not_change_are_no_steps(searched: Study) -> None:
    path = make_ablation(searched, CELL, {"x": 0.25, "y": 0.75})
    assert [arm.name for arm in path.arms] == ["published", "y 0.5 → 0.75"]


def test_settings_of_a_choice_change_with_it() -> None:
    pruning = choice(none=0.0, steps=Staircase(0.0, uniform(0.1, 0.6), stages=integer(2, 6)))
    arm = Arm("searched", DKD(temperature=uniform(1, 8), pruning=pruning), first=(DKD(pruning=0.0),))
    found: dict[str, Any] = {"temperature": 2.0, "pruning": "steps", "pruning.steps.end": 0.5}
    path = make_ablation(toy((BASELINE, arm)), CELL, found | {"pruning.steps.stages": 4})
    assert [arm.name for arm in path.arms] == ["published", "temperature 4 → 2", "pruning none → steps"]
    assert path.arms[1].loss == DKD(temperature=2.0, pruning=0.0)
    assert path.arms[2].loss == DKD(temperature=2.0, pruning=Staircase(0.0, 0.5, stages=4))


@pytest.mark.parametrize(
    ("arm", "cell", "params", "why"),
    [
        (ARM, "student / other", FOUND, "those with one are: student / searched"),
        (SEARCHED, CELL, {"x": 0.5}, "those with one are: none"),
        (ARM, CELL, {"x": 0.25, "y": 0.5}, "are those of its first point"),
    ],
)
def test_cells_without_a_path_are_refused(arm: Arm, cell: str, params: dict[str, float], why: str) -> None:
    with pytest.raises(InputError, match=why):
        make_ablation(toy((BASELINE, arm)), cell, params)

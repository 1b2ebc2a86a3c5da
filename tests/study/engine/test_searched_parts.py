"""Studies that search the recipe and the student: trials, confirm runs, resumes and refusals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study import Arm, Budget, CmaEs, Configuration, Grid, Tpe, choice, integer, log_uniform, uniform
from study.cli.dry_run.plan import format_plan
from study.engine.model_costs import list_students
from study.errors import InputError
from study.records.study_json import _describe_cell
from study.space.domains import find_domains
from study.study import Study
from study.trial import EpochResult, TrialContext
from tests.study.toy import drive, open_coordinator, toy
from trainables.tasks.simulated import Simulated, SimulatedLoss


@dataclasses.dataclass(frozen=True)
class ToyRecipe:
    rate: Any = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.rate, float) and self.rate > 2:
            raise InputError(f"rate is {self.rate}; allowed is at most 2")


@dataclasses.dataclass(frozen=True)
class ToyStudent:
    width: Any = 4

    @property
    def name(self) -> str:
        return f"net{self.width}"


@dataclasses.dataclass(frozen=True)
class ToyTask(Simulated):
    """A task whose accuracy falls with the distance of rate to 0.1 and of width to 6."""

    recipe: Any = ToyRecipe()

    def with_recipe(self, recipe: Any) -> ToyTask:
        if not isinstance(recipe, ToyRecipe):
            raise InputError(f"recipe is {recipe!r}; write ToyRecipe(…)")
        return dataclasses.replace(self, recipe=recipe)

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        assert not list(find_domains((context.student, context.recipe, context.loss)))
        off = abs(context.recipe.rate - 0.1) + abs(context.student.width - 6) / 10
        loss = dataclasses.replace(context.loss, gain=context.loss.gain - off)
        yield from super().train(dataclasses.replace(context, loss=loss))


PLAIN = Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True)
TUNED = Arm("tuned", SimulatedLoss(x=uniform(0, 1)))
SEARCHED, WIDTHS = ToyRecipe(log_uniform(0.01, 1)), integer(2, 8)


def study_of(*arms: Arm, recipe: Any = SEARCHED, width: Any = WIDTHS, **changes: Any) -> Study:
    parts = {"arms": arms or (PLAIN, TUNED), "task": ToyTask(recipe=recipe), "students": (ToyStudent(width),)}
    return dataclasses.replace(toy(), **parts | changes)


def rows_of(study: Study, folder: Path) -> list[dict[str, Any]]:
    coordinator = open_coordinator(study, folder)
    assert drive(coordinator, folder)
    return [row for row in coordinator.writer.records.trials.read_rows() if row["phase"] != "prepare"]


def test_every_cell_searches_the_shared_recipe_and_its_student(tmp_path: Path) -> None:
    study = study_of()
    rows = rows_of(study, tmp_path)
    names = {"recipe.rate", "student.width"}
    for cell, expected in (("net{2..8} / plain", names), ("net{2..8} / tuned", names | {"x"})):
        searched = [row for row in rows if row["cell"] == cell and row["phase"] == "search"]
        assert len(searched) == study.budget.trials
        assert all(set(json.loads(row["params"])) == expected for row in searched)


def test_rows_describe_the_recipe_and_student_of_their_trial(tmp_path: Path) -> None:
    for row in rows_of(study_of(), tmp_path):
        params, config = json.loads(row["params"]), json.loads(row["config"])
        assert config["task"]["recipe"]["rate"] == params["recipe.rate"]
        assert config["student"]["width"] == params["student.width"]
        assert row["student"] == "net{2..8}"


def test_best_recipe_and_student_are_confirmed(tmp_path: Path) -> None:
    study = study_of()
    rows = rows_of(study, tmp_path)
    for cell in study.cells:
        own = [row for row in rows if row["cell"] == cell.name]
        complete = [row for row in own if row["phase"] == "search" and row["state"] == "COMPLETE"]
        best = max(complete, key=lambda row: row["val/accuracy"])
        confirmed = [row for row in own if row["phase"] == "confirm"]
        assert len(confirmed) == study.budget.seeds
        assert {row["params"] for row in confirmed} == {best["params"]}
        chosen = list_students(open_coordinator(study, tmp_path))[cell.name]
        assert chosen == ToyStudent(json.loads(best["params"])["student.width"])


@pytest.mark.parametrize("sampler", [Tpe(startup_trials=3), CmaEs(), Grid(points=2)])
@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_resumed_study_runs_the_trials_of_an_uninterrupted_one(tmp_path: Path, sampler: Any, cut: int) -> None:
    first = (Configuration(SimulatedLoss(x=0.5), student=ToyStudent(6)),)
    study = study_of(
        PLAIN, dataclasses.replace(TUNED, first=first), sampler=sampler, budget=Budget(trials=14, epochs=2, seeds=1)
    )
    coordinator = open_coordinator(study, tmp_path / "cut")
    drive(coordinator, tmp_path / "cut", rows=cut)
    whole, resumed = rows_of(study, tmp_path / "whole"), rows_of(study, tmp_path / "cut")
    assert {row["trial_id"] for row in whole} == {row["trial_id"] for row in resumed}
    tuned = next(row for row in whole if (row["arm"], row["phase"], row["number"]) == ("tuned", "search", 0))
    params = json.loads(tuned["params"])
    assert (params["x"], params["student.width"]) == (0.5, 6)
    assert 0.01 <= params["recipe.rate"] <= 1


def test_fixed_student_and_recipe_leave_an_arm_without_domains_unsearched(tmp_path: Path) -> None:
    study = study_of(recipe=ToyRecipe(), width=4)
    assert [cell.is_searched for cell in study.cells] == [False, True]
    plain = [row for row in rows_of(study, tmp_path) if row["arm"] == "plain"]
    assert {row["phase"] for row in plain} == {"confirm"}
    assert list_students(open_coordinator(study, tmp_path)) == {"net4": ToyStudent(4)}


def test_arm_with_a_recipe_of_its_own_searches_it_alone(tmp_path: Path) -> None:
    own = Arm("own", SimulatedLoss(), recipe=SEARCHED)
    study = study_of(PLAIN, own, recipe=ToyRecipe(0.2), width=4)
    rows = rows_of(study, tmp_path)
    rates = {
        arm: {json.loads(row["config"])["task"]["recipe"]["rate"] for row in rows if row["arm"] == arm}
        for arm in ("plain", "own")
    }
    assert rates["plain"] == {0.2}
    assert len(rates["own"]) == study.budget.trials
    assert _describe_cell(study, study.find_cell("net4 / own"))["parameters"] == ["recipe.rate"]


def test_arm_is_tuned_alone_if_only_its_recipe_is() -> None:
    tuned = dataclasses.replace(TUNED, name="with recipe", recipe=SEARCHED, versus="tuned")
    study = study_of(PLAIN, TUNED, tuned, recipe=ToyRecipe(), width=4)
    assert [study.is_tuned_alone(arm) for arm in study.arms] == [False, True, True]
    shared = study_of(PLAIN, TUNED, width=4)
    assert [shared.is_tuned_alone(arm) for arm in shared.arms] == [False, False]


def test_dry_run_names_recipes_that_differ() -> None:
    own = Arm("own", SimulatedLoss(), recipe=SEARCHED)
    said = "\n".join(format_plan(study_of(PLAIN, own, recipe=ToyRecipe(), width=4), {}, []))
    assert "own and plain have different recipes: their difference is one of recipe and method together" in said
    assert "net4 / own: search 9 trials" in said
    assert "different recipes" not in "\n".join(format_plan(study_of(), {}, []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": ToyTask(noise=uniform(0, 1))}, r"task\.noise is a domain, Uniform\(.*\), and cannot be searched"),
        ({"seed": integer(0, 9)}, r"seed is a domain"),
        ({"students": (choice(a=ToyStudent(2), b=ToyStudent(4)),)}, "a student is a domain"),
        ({"arms": (PLAIN, Arm("x", SimulatedLoss(), recipe=3))}, "arm 'x'.*: recipe is 3; write ToyRecipe"),
        (
            {"arms": (PLAIN, Arm("x", SimulatedLoss(), recipe=ToyRecipe(uniform(1, 3))))},
            r"arm 'x' at an end of its search space: rate is 3\.0; allowed is at most 2",
        ),
    ],
)
def test_domain_that_cannot_be_searched_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(study_of(), **change)


def test_task_without_a_recipe_refuses_one() -> None:
    with pytest.raises(InputError, match=r"arm 'own'.*: recipe is ToyRecipe.* has no recipe"):
        toy((PLAIN, Arm("own", SimulatedLoss(), recipe=ToyRecipe())))


def test_name_of_two_domains_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Colliding(SimulatedLoss):
        student: Any = None

    with pytest.raises(InputError, match=r"two domains are called 'student\.width': rename one of"):
        study_of(PLAIN, Arm("x", Colliding(student=ToyStudent(integer(1, 2)))))

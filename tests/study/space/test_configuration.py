"""A cell's search space: domains of its loss, recipe and student under names of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from study import Configuration, choice, integer, log_uniform, uniform
from study.errors import InputError
from study.space.domains import find_domains, resolve_corners, resolve_params


@dataclass(frozen=True)
class Loss:
    temperature: Any = 4.0


@dataclass(frozen=True)
class Optimizer:
    decay: Any = 1e-4


@dataclass(frozen=True)
class Recipe:
    rate: Any = 0.1
    optimizer: Any = Optimizer()


@dataclass(frozen=True)
class Student:
    width: Any = 8

    @property
    def name(self) -> str:
        return f"net{self.width}"


SPACE = Configuration(
    Loss(uniform(1, 8)), Recipe(log_uniform(0.01, 1), choice(none=None, sgd=Optimizer())), Student(integer(2, 6))
)
POINT = {"temperature": 4.0, "recipe.rate": 0.1, "recipe.optimizer": "sgd", "student.width": 4}


def test_parameters_of_the_loss_have_no_prefix_and_others_that_of_their_part() -> None:
    assert [name for name, _ in find_domains(SPACE)] == [*POINT]
    assert resolve_params(SPACE, POINT) == Configuration(Loss(4.0), Recipe(0.1, Optimizer()), Student(4))


def test_choice_between_losses_keeps_its_name() -> None:
    space = Configuration(choice(Loss(uniform(1, 8)), Optimizer()), Recipe(), Student())
    assert [name for name, _ in find_domains(space)] == ["method", "Loss.temperature"]
    assert resolve_params(space, {"method": "Optimizer"}).loss == Optimizer()


def test_space_is_searched_if_any_part_has_a_domain() -> None:
    assert not Configuration(Loss(), Recipe(), Student()).is_searched
    for part in ({"loss": Loss(uniform(1, 8))}, {"recipe": Recipe(uniform(0, 1))}, {"student": Student(integer(2, 4))}):
        assert Configuration(**{"loss": Loss(), "recipe": Recipe(), "student": Student()} | part).is_searched


def test_corners_reach_both_ends_of_every_part() -> None:
    corners = list(resolve_corners(SPACE))
    assert {corner.loss.temperature for corner in corners} == {1.0, 8.0}
    assert {corner.recipe.rate for corner in corners} == {0.01, 1.0}
    assert {corner.recipe.optimizer for corner in corners} == {None, Optimizer()}
    assert {corner.student.width for corner in corners} == {2, 6}
    assert list(resolve_corners(Configuration(Loss(), Recipe(), Student()))) == [
        Configuration(Loss(), Recipe(), Student())
    ]


def test_first_point_is_a_loss_or_whatever_parts_it_gives() -> None:
    assert SPACE.read_first_point(Loss(4.0)) == {"temperature": 4.0}
    given = Configuration(Loss(4.0), Recipe(0.1, Optimizer()), Student(4))
    assert SPACE.read_first_point(given) == POINT
    assert SPACE.read_first_point(Configuration(Loss(4.0), student=Student(4))) == {
        "temperature": 4.0, "student.width": 4
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Loss(9.0), r"temperature is 9\.0; allowed is a number from 1 to 8"),
        (Configuration(Loss(4.0), recipe=Recipe(2.0)), r"recipe\.rate is 2\.0"),
        (Configuration(Loss(4.0), student=Student(7)), r"student\.width is 7"),
    ],
)
def test_first_point_outside_the_space_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPACE.read_first_point(given)


def test_student_is_named_with_its_domains() -> None:
    assert Student(integer(2, 6)).name == "net{2..6}"
    assert Student(choice(2, 4)).name == "net{2,4}"
    assert Student(uniform(0.25, 1)).name == "net{0.25..1}"
    assert f"{uniform(0.25, 1):g}" == "{0.25..1}"

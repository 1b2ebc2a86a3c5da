"""Domains, conditional domains and their range checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import choice, integer, log_uniform, uniform
from study.errors import InputError
from study.space.domains import find_domains, resolve, resolve_corners, resolve_params


@dataclass(frozen=True)
class Inner:
    height: Any = 1.0


@dataclass(frozen=True)
class Outer:
    width: Any = 2.0
    inner: Any = None
    pair: Any = (0.0, 0.0)


def test_domains_are_named_by_their_path() -> None:
    tree = Outer(uniform(0, 1), Inner(integer(1, 3)), (uniform(2, 3), 0.0))
    assert [name for name, _ in find_domains(tree)] == ["width", "inner.height", "pair.0"]


def test_option_of_a_choice_is_searched_only_when_chosen() -> None:
    tree = Outer(inner=choice(None, Inner(uniform(0, 1))))
    assert [name for name, _ in find_domains(tree)] == ["inner", "inner.Inner.height"]
    assert resolve_params(tree, {"inner": None}) == Outer(inner=None)
    assert resolve_params(tree, {"inner": "Inner", "inner.Inner.height": 0.25}) == Outer(inner=Inner(0.25))


def test_choice_between_whole_losses_has_a_name() -> None:
    tree = choice(Inner(uniform(0, 1)), Outer())
    assert [name for name, _ in find_domains(tree)] == ["method", "Inner.height"]
    assert resolve_params(tree, {"method": "Outer"}) == Outer()


def test_resolve_leaves_a_tree_without_domains_as_it_is() -> None:
    tree = Outer(1.0, Inner())
    assert resolve(tree, lambda name, domain: 1 / 0) is tree


def test_missing_parameter_is_named() -> None:
    with pytest.raises(InputError, match=r"no value for parameter 'width'; recorded are: height"):
        resolve_params(Outer(uniform(0, 1)), {"height": 1})


def test_corners_reach_both_ends_and_every_option() -> None:
    tree = Outer(uniform(0, 1), choice(None, Inner(integer(3, 7)), 5))
    met = list(resolve_corners(tree))
    assert {outer.width for outer in met} == {0, 1}
    assert {outer.inner for outer in met} == {None, Inner(3), Inner(7), 5}


def test_corners_reach_options_within_options() -> None:
    tree = choice(a=1, b=2, c=choice(p=3, q=Outer(uniform(4, 5), choice(6, 7))))
    assert {str(met) for met in resolve_corners(tree)} == {
        "1", "2", "3", *(str(Outer(width, inner)) for width, inner in ((4.0, 6), (5.0, 6), (4.0, 7), (5.0, 7)))
    }  # fmt: skip


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_uniform_accepts_exactly_the_ranges_that_are_not_empty(low: float, high: float) -> None:
    if low < high:
        assert uniform(low, high).high == high
    else:
        with pytest.raises(InputError, match="empty or reversed"):
            uniform(low, high)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_uniform(0, 1), "low must be above 0"),
        (lambda: integer(3, 3), "empty or reversed"),
        (lambda: integer(0.5, 3), "whole numbers"),  # type: ignore[arg-type]
        (lambda: choice(), "no options"),
        (lambda: choice([0.1, 0.5]), r"is a list: write choice\(\*\[0.1, 0.5\]\)"),
        (lambda: choice(Inner(1), Inner(2)), "two options called 'Inner'"),
        (lambda: uniform(float("nan"), 1), "finite"),
        (lambda: uniform(0, float("inf")), "finite"),
        (lambda: integer(1, float("inf")), "whole numbers"),  # type: ignore[arg-type]
        (lambda: integer(0, 10**30), r"within ±2\^53"),
        (lambda: uniform(-1.7e308, 1.7e308), "difference, must be finite"),
        (lambda: choice(0.1, float("nan")), "the option nan"),
        (lambda: choice(1, 2**60), r"whole ones within ±2\^53"),
    ],
)
def test_bad_domain_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_options_like_any_other() -> None:
    found = choice(*np.arange(2, 5), *np.float32([0.5]), True)
    assert found.labels == found.options == (2, 3, 4, 0.5, True)
    assert [type(label) for label in found.labels] == [int, int, int, float, bool]

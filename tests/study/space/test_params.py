"""Points read from concrete objects, and grids."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import choice, integer, log_uniform, uniform
from study.errors import InputError
from study.space.domains import resolve_params
from study.space.params import build_grid, count_grid_points, is_point_of, is_same_point, list_levels, read_params
from tests.study.space.test_domains import Inner, Outer

SPACE = Outer(
    width=uniform(0, 1),
    inner=choice(None, "flat", Inner(log_uniform(0.1, 10)), tall=Inner(uniform(20, 30)), on=True),
    pair=(integer(1, 8), 0.5),
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Outer(0.25, None, (3, 0.5)), {"width": 0.25, "inner": None, "pair.0": 3}),
        (Outer(1, "flat", (8.0, 0.5)), {"width": 1.0, "inner": "flat", "pair.0": 8}),
        (Outer(0, Inner(10), (1, 0.5)), {"width": 0.0, "inner": "Inner", "inner.Inner.height": 10.0, "pair.0": 1}),
        (Outer(0, Inner(25), (1, 0.5)), {"width": 0.0, "inner": "tall", "inner.tall.height": 25.0, "pair.0": 1}),
        (Outer(0, True, (1, 0.5)), {"width": 0.0, "inner": "on", "pair.0": 1}),
        (Outer(0, "on", (1, 0.5)), {"width": 0.0, "inner": "on", "pair.0": 1}),
    ],
)
def test_point_is_read_from_a_concrete_object(given: Outer, expected: dict[str, Any]) -> None:
    found = read_params(SPACE, given)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]
    assert is_point_of(SPACE, found)


def test_booleans_and_numbers_are_different_labels() -> None:
    space = Outer(inner=choice(False, True))
    assert read_params(space, Outer(inner=True)) == {"inner": True}
    with pytest.raises(InputError, match="inner is 1; allowed is one of False, True"):
        read_params(space, Outer(inner=1))
    assert not is_point_of(space, {"inner": 0})


def test_point_of_a_choice_between_whole_losses_is_read() -> None:
    space = choice(Inner(uniform(0, 1)), Outer(uniform(0, 1)))
    assert read_params(space, Outer(0.5)) == {"method": "Outer", "Outer.width": 0.5}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Outer(1.5, None, (1, 0.5)), "width is 1.5; allowed is a number from 0 to 1"),
        (Outer(float("nan"), None, (1, 0.5)), "width is nan; allowed is a number from 0 to 1"),
        (Outer(True, None, (1, 0.5)), "width is True; allowed is a number"),
        (Outer("0.5", None, (1, 0.5)), "width is '0.5'; allowed is a number"),
        (Outer(0.5, None, (2.5, 0.5)), "pair.0 is 2.5; allowed is a whole number from 1 to 8"),
        (Outer(0.5, None, (1, 0.4)), "pair.1 is 0.4; the search space has 0.5 there, fixed"),
        (Outer(0.5, None, (1, 0.5, 2)), r"pair is \(1, 0.5, 2\); the search space has a tuple there"),
        (Outer(0.5, "round", (1, 0.5)), "inner is 'round'; allowed is one of None, flat, Inner, tall, on"),
        (Outer(0.5, 1, (1, 0.5)), "inner is 1; allowed is one of"),
        (Outer(0.5, Inner(15), (1, 0.5)), r"inner is Inner\(height=15\); allowed is one of"),
        (Outer(0.5, "Inner", (1, 0.5)), "inner is 'Inner'; allowed is one of"),
        (Inner(0.5), r"the loss is Inner\(height=0.5\); the search space has a Outer there"),
    ],
)
def test_object_outside_the_space_is_refused_by_field(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_params(SPACE, given)
    assert "\n" not in str(error.value)


def test_object_of_the_only_option_of_its_class_is_refused_by_its_field() -> None:
    space = Outer(inner=choice(None, Inner(uniform(0, 1))))
    with pytest.raises(InputError, match=r"inner.Inner.height is 5; allowed is a number from 0 to 1"):
        read_params(space, Outer(inner=Inner(5)))


@pytest.mark.parametrize(
    ("params", "is_point"),
    [
        ({"width": 0.5, "inner": None, "pair.0": 3}, True),
        ({"width": 0.5, "inner": "tall", "inner.tall.height": 21, "pair.0": 3}, True),
        ({"width": 0.5, "inner": "tall", "pair.0": 3}, False),
        ({"width": 0.5, "inner": None, "inner.tall.height": 21, "pair.0": 3}, False),
        ({"width": 0.5, "inner": "gone", "pair.0": 3}, False),
        ({"width": 1.5, "inner": None, "pair.0": 3}, False),
        ({"width": 0.5, "inner": None, "pair.0": 3.5}, False),
        ({"inner": None, "pair.0": 3}, False),
        ({}, False),
    ],
)
def test_params_are_a_point_if_complete_and_inside(params: dict[str, Any], is_point: bool) -> None:
    assert is_point_of(SPACE, params) is is_point


# -- grids -------------------------------------------------------------------------------------------------------------


def test_grid_is_the_product_of_levels_with_a_grid_per_option() -> None:
    space = Outer(uniform(0, 1), choice(None, Inner(integer(1, 2))), (log_uniform(0.01, 1), 0.5))
    options: list[dict[str, Any]] = [
        {"inner": None},
        {"inner": "Inner", "inner.Inner.height": 1},
        {"inner": "Inner", "inner.Inner.height": 2},
    ]
    expected = [
        {"width": width, "pair.0": scale} | option
        for width in (0.0, 0.5, 1.0)
        for option in options
        for scale in (0.01, 0.1, 1.0)
    ]
    found = build_grid(space, 3)
    assert len(found) == len(expected) == count_grid_points(space, 3)
    assert all(any(is_same_point(point, other) for other in found) for point in expected)


NUMBERS = st.one_of(
    st.tuples(st.floats(-100, 100), st.floats(0.01, 100)).map(lambda d: uniform(d[0], d[0] + d[1])),
    st.tuples(st.floats(1e-6, 10), st.floats(1.1, 1e6)).map(lambda d: log_uniform(d[0], d[0] * d[1])),
    st.tuples(st.integers(1, 50), st.integers(1, 50), st.booleans()).map(
        lambda d: integer(d[0], d[0] + d[1], log=d[2])
    ),
)
TREES = st.recursive(
    st.one_of(NUMBERS, st.just(0.5)),
    lambda trees: st.one_of(
        st.lists(trees, min_size=1, max_size=2).map(tuple),
        trees.map(Inner),
        st.lists(trees, min_size=1, max_size=3).map(
            lambda options: choice(**{f"option{n}": option for n, option in enumerate(options)})
        ),
    ),
    max_leaves=4,
)


@given(TREES, st.integers(2, 4))
def test_grid_points_are_distinct_and_as_many_as_counted_and_can_be_read_back(tree: Any, points: int) -> None:
    found = build_grid(tree, points)
    assert len(found) == count_grid_points(tree, points)
    assert len({tuple(sorted(point.items())) for point in found}) == len(found)
    for point in found:
        assert is_point_of(tree, point)
        resolved = resolve_params(tree, point)
        assert resolve_params(tree, read_params(tree, resolved)) == resolved


@given(NUMBERS, st.integers(2, 9))
def test_levels_reach_both_ends_evenly_on_their_scale(domain: Any, points: int) -> None:
    found: list[Any] = list_levels(domain, points)
    assert (found[0], found[-1]) == (domain.low, domain.high)
    assert found == sorted(set(found))
    assert len(found) <= points
    if isinstance(domain.low, int):
        whole = list(range(domain.low, domain.high + 1))
        assert found == whole if len(whole) <= points else set(found) <= set(whole)
    else:
        scaled = [math.log(value) if domain.log else value for value in found]
        steps = [right - left for left, right in itertools.pairwise(scaled)]
        assert steps == pytest.approx([sum(steps) / len(steps)] * len(steps), rel=1e-6)

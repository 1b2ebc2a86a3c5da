from __future__ import annotations

import math

import pytest

from study import choice
from study.errors import InputError
from study.space.domains import integer, uniform
from trainables.losses.common.image_distance import NORMS
from trainables.training.schedules import Cosine, Staircase
from trainables.training.settings import Progress, check_choice, check_range, value_at


def test_number_and_schedule_are_read_alike():
    assert value_at(4, Progress(3, 10)) == 4.0
    assert isinstance(value_at(4, Progress(3, 10)), float)
    assert value_at(Staircase(1.0, 2.0, stages=2), Progress(9, 10)) == 2.0


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf, -math.inf, Staircase(0.5, 1.0, stages=2)])
def test_require_refuses_what_is_outside(value):
    with pytest.raises(InputError, match=r"share is .*; allowed is a finite number > 0 and < 1"):
        check_range("share", value, above=0, below=1)


@pytest.mark.parametrize(
    "value", [0, 1.0, 0.5, Cosine(1.0, 0.0), uniform(-5, 5), Staircase(0.0, uniform(0, 5), stages=integer(1, 4))]
)
def test_require_takes_what_is_inside_and_leaves_domains_for_later(value):
    check_range("share", value, low=0, high=1)


def test_schedule_with_domains_is_checked_when_it_is_resolved():
    check_range("pruning", Staircase(0.0, uniform(0.5, 2.0), stages=integer(1, 4)), low=0, below=1)
    with pytest.raises(InputError, match="pruning is 2"):
        check_range("pruning", Staircase(0.0, 2.0, stages=1), low=0, below=1)


def test_what_is_no_choice_is_refused():
    with pytest.raises(InputError, match="pixel_norm is 'l2'; allowed are 'mse', 'l2norm', 'l1'"):
        check_choice("pixel_norm", "l2", NORMS)
    check_choice("pixel_norm", choice("mse", "l1"), NORMS)

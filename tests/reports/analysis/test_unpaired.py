from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.analysis.unpaired import compare_unpaired
from tests.reports.fake_study import NONE, SEARCHED


def by_hand(a: list[float], b: list[float]) -> float:
    """The permutation test, counted out."""
    both, seen = np.array([*a, *b]), abs(np.mean(a) - np.mean(b))
    dealt = [list(chosen) for chosen in combinations(range(len(both)), len(a))]
    apart = [abs(both[chosen].mean() - np.delete(both, chosen).mean()) for chosen in dealt]
    return float(np.mean([value >= seen - 1e-12 for value in apart]))


@settings(deadline=None)  # a busy machine is slower than the default deadline
@example([17, 5, 18, 13, 17, 3, 15, 18])  # equal means, which sums in another order tell apart
@given(st.lists(st.integers(0, 20), min_size=8, max_size=8))
def test_unpaired_p_is_the_share_of_deals_at_least_as_far_apart(values: list[int]) -> None:
    a, b = [value / 7 for value in values[:4]], [value / 7 for value in values[4:]]
    assert compare_unpaired(a, b, "max").p == pytest.approx(by_hand(a, b))


def test_unpaired_interval_is_welchs() -> None:
    a, b = SEARCHED, NONE[:5]
    x, y = np.array(a), np.array(b)
    parts = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = compare_unpaired(a, b, "max")
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (found.difference - half, found.difference + half)
    )


def test_unpaired_of_single_runs_decides_nothing() -> None:
    found = compare_unpaired([1.0], [2.0, 3.0], "max")
    assert (found.p, found.interval) == (1.0, None)


def test_unpaired_runs_that_float32_rounds_in_different_ways_are_ties() -> None:
    assert compare_unpaired([30.000002] * 6, [30.0] * 6, "max").p == 1.0
    assert compare_unpaired([1e-20] * 6, [0.0] * 6, "max").p == 1.0
    assert compare_unpaired([1e-20] * 6, [0.0] * 6, "max", resolution=0.0).p < 0.01


def test_unpaired_of_equal_values_has_an_interval_without_width() -> None:
    found = compare_unpaired([2.0, 2.0], [1.0, 1.0], "max")
    assert found.interval is not None
    assert found.interval.low == found.interval.high == 1.0

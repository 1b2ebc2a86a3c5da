"""Oracles: brute force over all sign flips, scipy's tests, and simulated studies without an effect."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.analysis import power, sign_tests
from reports.analysis.statistics import subtract_paired

DIFFERENCES = [0.9, -0.3, 1.2, 0.4, 0.0, 0.7, -0.1]
FINITE = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def brute_force_p(differences: list[float]) -> float:
    """Share of the 2ⁿ sign patterns whose mean is at least as far from zero as the one seen."""
    seen = abs(np.mean(differences))
    flips = itertools.product([1, -1], repeat=len(differences))
    return float(np.mean([abs(np.mean(np.multiply(signs, differences))) >= seen - 1e-12 for signs in flips]))


@pytest.mark.parametrize("differences", [DIFFERENCES, [1.0, 2.0, 3.0], [0.5], [0.0, 0.0], [-1.0, -2.0, 4.0, -3.0]])
def test_sign_flip_p_equals_brute_force(differences: list[float]) -> None:
    assert sign_tests.compute_sign_flip_p(differences) == pytest.approx(brute_force_p(differences), abs=1e-12)


@given(st.lists(FINITE, min_size=2, max_size=8))
def test_sign_flip_p_equals_scipy(differences: list[float]) -> None:
    found = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**8, axis=-1)
    assert sign_tests.compute_sign_flip_p(differences) == pytest.approx(found.pvalue, abs=1e-12)


@given(st.lists(FINITE, min_size=1, max_size=8))
def test_sign_flip_p_ignores_overall_sign_and_order(differences: list[float]) -> None:
    p = sign_tests.compute_sign_flip_p(differences)
    assert sign_tests.compute_sign_flip_p([-x for x in reversed(differences)]) == pytest.approx(p)
    assert power.smallest_p(len(differences)) - 1e-12 <= p <= 1


def test_sign_flip_p_beyond_exact_is_seeded_and_near_the_t_test() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1.0, 25)
    p = sign_tests.compute_sign_flip_p(differences)
    assert p == sign_tests.compute_sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)


def test_smallest_p_of_many_seeds_is_zero() -> None:
    assert power.smallest_p(5000) == 0.0


def test_smallest_p_is_reached_when_all_differences_agree() -> None:
    assert sign_tests.compute_sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == power.smallest_p(6) == 2 / 64


def test_paired_comparison_without_an_effect_errs_at_most_at_the_level() -> None:
    # The test is exact, so of 600 null studies at most 5 % may fall below 0.05; 7.7 % is three standard errors above.
    rng = np.random.default_rng(0)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    studies = rng.normal(size=(600, 8))
    flipped = np.abs(studies @ signs.T)
    p = (flipped >= np.abs(studies.sum(axis=1, keepdims=True)) - 1e-12).mean(axis=1)
    assert [sign_tests.compute_sign_flip_p(row) for row in studies[:5]] == pytest.approx(p[:5])
    assert (p <= 0.05).mean() <= 0.077


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_sign_p_is_the_binomial_one_without_ties(differences: list[float]) -> None:
    positive, negative = sum(x > 0 for x in differences), sum(x < 0 for x in differences)
    n = positive + negative
    tail = sum(math.comb(n, k) for k in range(max(positive, negative), n + 1)) / 2**n
    assert sign_tests.compute_sign_p(differences) == pytest.approx(min(1.0, 2 * tail))
    if n:
        greater = stats.binomtest(positive, n, alternative="greater").pvalue
        assert sign_tests.compute_sign_p(differences, "greater") == pytest.approx(greater, abs=1e-12)


def test_margin_p_is_that_of_shifted_differences() -> None:
    differences = [-0.7, 0.2, -0.25, 0.1, -0.05, 0.02]
    flips = np.array(list(itertools.product([1, -1], repeat=6)))
    for direction, sign, by_signs in (("max", 1, 7 / 2**6), ("min", -1, 1 / 2**6)):
        shifted = 0.3 + sign * np.array(differences)
        expected = np.mean(flips @ shifted >= shifted.sum() - 1e-12)
        assert sign_tests.compute_margin_p(differences, 0.3, direction) == pytest.approx(expected)
        assert sign_tests.compute_margin_p(differences, 0.3, direction, "sign") == pytest.approx(by_signs)


@pytest.mark.parametrize(("a", "b", "margin"), [(0.905, 0.91, 0.005), (0.928, 0.938, 0.01), (0.926, 0.946, 0.02)])
def test_difference_of_exactly_the_margin_is_a_tie_whatever_the_rounding(a: float, b: float, margin: float) -> None:
    differences = subtract_paired([a] * 6, [b] * 6)
    for test in ("sign", "sign-flip"):
        assert sign_tests.compute_margin_p(differences, margin, "max", test) == 1.0


def test_margin_p_beyond_exact_is_near_the_exact_one() -> None:
    differences = np.random.default_rng(3).normal(0, 1, 21)
    by_t = stats.ttest_1samp(differences + 0.6, 0, alternative="greater").pvalue
    assert sign_tests.compute_margin_p(differences, 0.6, "max") == pytest.approx(by_t, abs=0.01)

"""Oracles: brute force over all sign flips, published worked examples, and simulated studies without an effect."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.analysis import power, statistics
from reports.analysis.statistics import Interval

DIFFERENCES = [0.9, -0.3, 1.2, 0.4, 0.0, 0.7, -0.1]
FINITE = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def brute_force_p(differences: list[float]) -> float:
    """Share of the 2ⁿ sign patterns whose mean is at least as far from zero as the one seen."""
    seen = abs(np.mean(differences))
    flips = itertools.product([1, -1], repeat=len(differences))
    return float(np.mean([abs(np.mean(np.multiply(signs, differences))) >= seen - 1e-12 for signs in flips]))


@pytest.mark.parametrize("differences", [DIFFERENCES, [1.0, 2.0, 3.0], [0.5], [0.0, 0.0], [-1.0, -2.0, 4.0, -3.0]])
def test_sign_flip_p_equals_brute_force(differences: list[float]) -> None:
    assert statistics.compute_sign_flip_p(differences) == pytest.approx(brute_force_p(differences), abs=1e-12)


@given(st.lists(FINITE, min_size=2, max_size=8))
def test_sign_flip_p_equals_scipy(differences: list[float]) -> None:
    found = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**8, axis=-1)
    assert statistics.compute_sign_flip_p(differences) == pytest.approx(found.pvalue, abs=1e-12)


@given(st.lists(FINITE, min_size=1, max_size=8))
def test_sign_flip_p_ignores_overall_sign_and_order(differences: list[float]) -> None:
    p = statistics.compute_sign_flip_p(differences)
    assert statistics.compute_sign_flip_p([-x for x in reversed(differences)]) == pytest.approx(p)
    assert power.smallest_p(len(differences)) - 1e-12 <= p <= 1


def test_sign_flip_p_beyond_exact_is_seeded_and_near_the_t_test() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1.0, 25)
    p = statistics.compute_sign_flip_p(differences)
    assert p == statistics.compute_sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)


def test_smallest_p_of_many_seeds_is_zero() -> None:
    assert power.smallest_p(5000) == 0.0


def test_smallest_p_is_reached_when_all_differences_agree() -> None:
    assert statistics.compute_sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == power.smallest_p(6) == 2 / 64


def test_paired_comparison_without_an_effect_errs_at_most_at_the_level() -> None:
    # The test is exact, so of 600 null studies at most 5 % may fall below 0.05; 7.7 % is three standard errors above.
    rng = np.random.default_rng(0)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    studies = rng.normal(size=(600, 8))
    flipped = np.abs(studies @ signs.T)
    p = (flipped >= np.abs(studies.sum(axis=1, keepdims=True)) - 1e-12).mean(axis=1)
    assert [statistics.compute_sign_flip_p(row) for row in studies[:5]] == pytest.approx(p[:5])
    assert (p <= 0.05).mean() <= 0.077


def test_holm_equals_the_worked_example() -> None:
    # By hand: sorted 0.005, 0.010, 0.030, 0.040 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall.
    assert statistics.adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.adjust_by_holm([]) == []
    assert statistics.adjust_by_holm([0.6, 0.9]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, statistics.adjust_by_holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, p * len(p_values)) + 1e-12


def test_bca_interval_covers_the_mean_of_skewed_differences() -> None:
    # Nominal coverage is 95 %; with 12 skewed values BCa is known to fall short of it by a few percent.
    rng = np.random.default_rng(1)
    found = [statistics.compute_bca_interval(rng.exponential(1.0, 12)) for _ in range(200)]
    assert np.mean([interval is not None and interval.low <= 1.0 <= interval.high for interval in found]) > 0.85


@given(st.lists(FINITE, min_size=3, max_size=6))
def test_bca_interval_stays_within_the_values(differences: list[float]) -> None:
    interval = statistics.compute_bca_interval(differences)
    assert interval is not None
    assert min(differences) - 1e-9 <= interval.low <= interval.high <= max(differences) + 1e-9


def test_bca_interval_without_a_bias_is_the_percentile_interval() -> None:
    values = [0.0, 0.0, 0.0, 1e-9]  # no resample has a mean below theirs but that of zeros alone
    found = statistics.compute_bca_interval(values)
    drawn = np.random.default_rng(0).integers(0, 4, (9_999, 4))
    assert found is not None
    assert found.low == 0
    assert found.high <= np.asarray(values)[drawn].mean(axis=1).max()


def test_bca_interval_of_degenerate_values() -> None:
    assert statistics.compute_bca_interval([0.1, 0.2]) is None
    assert statistics.compute_bca_interval([0.25] * 5) == Interval(0.25, 0.25)
    nearly = statistics.compute_bca_interval([0.1 + 0.2, 0.3, 0.3])  # equal but for rounding
    assert nearly is not None
    assert (nearly.low, nearly.high) == pytest.approx((0.3, 0.3))


def test_mean_interval_is_the_t_interval() -> None:
    found = statistics.compute_mean(DIFFERENCES)
    low, high = stats.t.interval(0.95, len(DIFFERENCES) - 1, np.mean(DIFFERENCES), stats.sem(DIFFERENCES))
    assert found.interval is not None
    assert (found.n, found.mean) == (7, pytest.approx(0.4))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert statistics.compute_mean([0.5]).interval is None


@pytest.mark.parametrize("bad", [[], [float("nan")], [1.0, float("inf")]])
def test_values_that_are_not_finite_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        statistics.compare_paired(bad, bad, "max")
    with pytest.raises(ValueError, match="finite"):
        statistics.compute_mean(bad)


def test_values_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        statistics.compare_paired([1.0, 2.0], [1.0], "max")


def test_paired_keeps_the_raw_difference_and_lets_direction_judge() -> None:
    lower, higher = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0], [2.0, 2.2, 1.9, 2.1, 2.0, 2.3]
    error = statistics.compare_paired(lower, higher, "min")
    score = statistics.compare_paired(lower, higher, "max")
    assert error.difference == score.difference < 0
    assert statistics.decide_verdict(error, error.p) == "better"
    assert statistics.decide_verdict(score, score.p) == "worse"
    assert statistics.decide_verdict(score, 0.06) == "undecided"


def test_single_pair_has_no_interval_and_decides_nothing() -> None:
    single = statistics.compare_paired([0.9], [0.5], "max")
    assert (single.n, single.sd, single.interval, single.p) == (1, 0.0, None, 1.0)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_sign_p_is_the_binomial_one_without_ties(differences: list[float]) -> None:
    positive, negative = sum(x > 0 for x in differences), sum(x < 0 for x in differences)
    n = positive + negative
    tail = sum(math.comb(n, k) for k in range(max(positive, negative), n + 1)) / 2**n
    assert statistics.compute_sign_p(differences) == pytest.approx(min(1.0, 2 * tail))
    if n:
        greater = stats.binomtest(positive, n, alternative="greater").pvalue
        assert statistics.compute_sign_p(differences, "greater") == pytest.approx(greater, abs=1e-12)


def test_margin_p_is_that_of_shifted_differences() -> None:
    differences = [-0.7, 0.2, -0.25, 0.1, -0.05, 0.02]
    flips = np.array(list(itertools.product([1, -1], repeat=6)))
    for direction, sign, by_signs in (("max", 1, 7 / 2**6), ("min", -1, 1 / 2**6)):
        shifted = 0.3 + sign * np.array(differences)
        expected = np.mean(flips @ shifted >= shifted.sum() - 1e-12)
        assert statistics.compute_margin_p(differences, 0.3, direction) == pytest.approx(expected)
        assert statistics.compute_margin_p(differences, 0.3, direction, "sign") == pytest.approx(by_signs)


@pytest.mark.parametrize(("a", "b", "margin"), [(0.905, 0.91, 0.005), (0.928, 0.938, 0.01), (0.926, 0.946, 0.02)])
def test_difference_of_exactly_the_margin_is_a_tie_whatever_the_rounding(a: float, b: float, margin: float) -> None:
    differences = statistics.subtract_paired([a] * 6, [b] * 6)
    for test in ("sign", "sign-flip"):
        assert statistics.compute_margin_p(differences, margin, "max", test) == 1.0


def test_margin_p_beyond_exact_is_near_the_exact_one() -> None:
    differences = np.random.default_rng(3).normal(0, 1, 21)
    by_t = stats.ttest_1samp(differences + 0.6, 0, alternative="greater").pvalue
    assert statistics.compute_margin_p(differences, 0.6, "max") == pytest.approx(by_t, abs=0.01)


def test_skewness_is_seen_in_eight_differences_and_more() -> None:
    skewed = [0.1, 0.12, 0.09, 0.11, 0.1, 0.13, 0.08, -2.0]
    assert statistics.is_skewed(skewed)
    assert not statistics.is_skewed(skewed[1:]), "seven are too few to tell"
    assert not statistics.is_skewed(np.random.default_rng(0).normal(size=30))
    assert not statistics.is_skewed([0.5] * 9)


def test_pairs_that_differ_by_rounding_are_tied() -> None:
    tied = statistics.compare_paired([0.1 + 0.2] * 6, [0.3] * 6, "max")
    assert (tied.difference, tied.p, tied.alike) == (0.0, 1.0, True)
    single_sample = statistics.compare_paired([(k + 1) / 1_000_000 for k in (900_000, 5)], [0.9, 5e-6], "max")
    assert single_sample.difference == pytest.approx(1e-6), "one sample of a million is no tie"


@pytest.mark.parametrize("test", ["sign-flip", "sign"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1e-20] * 6, [0.0] * 6),
        ([-1e-20] * 6, [1e-20] * 6),
        ([3e-11] * 6, [-3e-11] * 6),  # below a millionth of the last of four digits
        ([1e-300, 2e-320, 5e-324, 1e-20, 1e-15, 1e-12], [0.0] * 6),
        ([0.7, 0.8, 0.9, 0.6, 0.5, 1e-9], [0.7, 0.8, 0.9, 0.6, 0.5, -1e-9]),  # rounding of scores near 0.7
        ([1e30 * (1 + 1e-9)] * 6, [1e30] * 6),
    ],
)
def test_differences_without_a_digit_of_the_scores_are_tied(
    a: list[float], b: list[float], test: statistics.Test
) -> None:
    tied = statistics.compare_paired(a, b, "max", test)
    assert (tied.difference, tied.sd, tied.p, tied.alike) == (0.0, 0.0, 1.0, True)
    assert tied.interval == Interval(0.0, 0.0)


def test_resolution_is_the_metrics_own() -> None:
    small = [3e-12, 4e-12, 5e-12, 3e-12, 2e-12, 6e-12], [1e-12] * 6
    assert statistics.compare_paired(*small, "max").alike
    assert statistics.compare_paired(*small, "max", resolution=1e-20).p == 2 / 64
    assert statistics.summarize_differences([1e-20] * 6, "max").p == 1.0


def test_one_run_of_another_magnitude_ties_no_others() -> None:
    differences = statistics.subtract_paired([3.1, 3.2, 3.3, 3.4, 3.5, 1e12], [3.0] * 6)
    assert np.count_nonzero(differences) == 6

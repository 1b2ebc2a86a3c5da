"""The difference between runs that share no seed, as those of two studies may, by a permutation test."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # scipy.stats is imported when it is first used: it takes a second

from reports.analysis.sign_tests import MAX_EXACT_PAIRS, RESAMPLES, TIE
from reports.analysis.statistics import RESOLUTION, Interval, Paired
from study.trial import Direction

MAX_PERMUTATIONS = 2**MAX_EXACT_PAIRS
"""Largest number of ways to divide the runs between two studies that are all counted; beyond it, a random sample is."""


def compare_unpaired(
    a: Sequence[float], b: Sequence[float], direction: Direction, resolution: float = RESOLUTION
) -> Paired:
    """Compare independent runs by the two-sided permutation test of mean(a) − mean(b).

    p is the share of all ways to divide the same runs between both sides whose difference of means is at least as
    large. Like the sign-flip test, it assumes no distribution. With n runs on each side, p is at least 2/C(2n, n).
    Differences of rounding size relative to the largest value, and those up to `resolution`, are ties.
    The result has the smaller number of runs as `n`, and no standard deviation.
    Source: Pitman 1937, "Significance tests which may be applied to samples from any populations", I.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference, n = float(x.mean() - y.mean()), min(len(x), len(y))
    if n < 2:
        return Paired(n, difference, 0.0, None, 1.0, direction)
    # differences of values divided by `largest` are rounded to TIE
    largest = max(float(np.abs(x).max()), float(np.abs(y).max()), 2 * resolution / TIE) or 1.0
    ways = math.comb(len(x) + len(y), len(x))
    test = scipy.stats.permutation_test(
        (x / largest, y / largest),
        _difference_of_means,
        vectorized=True,
        n_resamples=ways if ways <= MAX_PERMUTATIONS else RESAMPLES,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return Paired(n, difference, 0.0, _welch_interval(x, y), float(test.pvalue), direction)


def _difference_of_means(x: Any, y: Any, axis: int) -> Any:
    """Return the difference for values in [−1, 1], rounded so that those of rounding size are ties."""
    return np.round(x.mean(axis=axis) - y.mean(axis=axis), -round(math.log10(TIE)))


def _welch_interval(x: Any, y: Any) -> Interval:
    """Return the 95 % interval for unequal variances. Source: Welch 1947."""
    if np.ptp(x) == np.ptp(y) == 0:
        return Interval(float(x.mean() - y.mean()), float(x.mean() - y.mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about equal values on one side, which are valid
        found = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    return Interval(float(found.low), float(found.high))

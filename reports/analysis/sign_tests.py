"""Tests of paired differences by their signs: the sign-flip test, the sign test, and both of a margin.

If two arms did not differ, each difference would be as likely to have the opposite sign; the p value of the sign-flip
test is the share of all sign combinations whose mean is at least as far from zero as the observed one. With n pairs it
is at least 2/2ⁿ, so a few seeds cannot decide, however large the effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy  # scipy.stats is imported when it is first used: it takes a second
from numpy.typing import NDArray

from study.trial import Direction

Test = Literal["sign-flip", "sign"]

LEVEL = 0.05
"""Significance level of verdicts, after correction."""
TIE = 1e-6
"""Relative difference up to which two runs are tied: float32 may round equal results in different ways. Accuracies
over up to a million samples differ by more, or not at all."""
MAX_EXACT_PAIRS = 20
"""Largest number of pairs for which all 2ⁿ sign flips are counted; beyond it, `RESAMPLES` random ones are drawn."""
RESAMPLES = 99_999


def compute_sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the two-sided p value of the sign-flip test on the mean; exact up to `MAX_EXACT_PAIRS` values.

    Source: Fisher 1935, "The Design of Experiments", §21.
    """
    x = check_finite(differences)
    return _count_at_least(np.abs(_sum_sign_flips(x)), abs(float(x.sum())), x)


def compute_margin_p(
    differences: Sequence[float] | NDArray[np.float64], margin: float, direction: Direction, test: Test = "sign-flip"
) -> float:
    """Return the one-sided p of "worse by `margin` or more": that margin ± difference is above 0, by either test.

    Source: the tests of this module on shifted differences, as non-inferiority trials shift the t test; Wellek 2010,
    "Testing Statistical Hypotheses of Equivalence and Noninferiority", chapter 2.
    """
    x = margin + (1.0 if direction == "max" else -1.0) * check_finite(differences)
    x[np.abs(x) <= TIE * margin] = 0.0  # worse by exactly the margin, whatever the rounding
    if test == "sign":
        return compute_sign_p(x, "greater")
    return _count_at_least(_sum_sign_flips(x), float(x.sum()), x)


def compute_sign_p(
    differences: Sequence[float] | NDArray[np.float64], alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return the exact p value of the sign test: either sign is equally likely. Ties are left out; 1 if all are.

    Unlike the sign-flip test it holds its level for differences of any distribution, and asks which arm is better on
    most seeds, not on average.
    Source: Dixon & Mood 1946, "The statistical sign test".
    """
    x = check_finite(differences)
    untied = int(np.count_nonzero(x))
    if not untied:
        return 1.0
    return float(scipy.stats.binomtest(int((x > 0).sum()), untied, alternative=alternative).pvalue)


def _sum_sign_flips(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of `x` under all sign flips, or under `RESAMPLES` random ones."""
    if len(x) > MAX_EXACT_PAIRS:
        return np.random.default_rng(0).choice(np.array([-1.0, 1.0]), size=(RESAMPLES, len(x))) @ x
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _count_at_least(flipped: NDArray[np.float64], seen: float, x: NDArray[np.float64]) -> float:
    """Return the share of flipped sums that are at least the observed one, which random flips have to count as well."""
    # tolerance: equal sums may differ by rounding, since they add the values in another order
    count = int((flipped >= seen - 1e-12 * float(np.abs(x).sum())).sum())
    return count / len(flipped) if len(x) <= MAX_EXACT_PAIRS else (1 + count) / (1 + len(flipped))


def check_finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values as an array; raises ValueError for none, or values that are not finite."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {list(values)}")
    return x

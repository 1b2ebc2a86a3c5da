"""The statistics of a comparison: paired differences over shared seeds, intervals, tests and verdicts.

Two arms are compared by the differences of runs that share a seed: the same initial weights, data order and views. If
the arms did not differ, each difference would be as likely to have the opposite sign; the p value of the sign-flip test
is the share of all sign combinations whose mean is at least as far from zero as the observed one. With n pairs it is
at least 2/2ⁿ, so a few seeds cannot decide, however large the effect.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # scipy.stats is imported when it is first used: it takes a second
from numpy.typing import NDArray

Direction = Literal["max", "min"]
Test = Literal["sign-flip", "sign"]
Verdict = Literal["better", "worse", "not worse", "undecided"]
"""Not worse: the arm is shown to be worse by less than the margin that its study declares, or better."""

LEVEL = 0.05
"""Significance level of verdicts, after correction."""
TIE = 1e-6
"""Relative difference up to which two runs are tied: float32 may round equal results in different ways. Accuracies
over up to a million samples differ by more, or not at all."""
RESOLUTION = 1e-10
"""Difference up to which two runs are tied unless their metric has other digits: that of a metric of four digits."""
SKEWED = 0.05
"""p of D'Agostino's test of skewness up to which differences count as skewed."""
MAX_EXACT_PAIRS = 20
"""Largest number of pairs for which all 2ⁿ sign flips are counted; beyond it, `RESAMPLES` random ones are drawn."""
RESAMPLES = 99_999


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """The mean of one cell's runs; without an interval for a single run."""

    n: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Paired:
    """The differences a − b of paired runs."""

    n: int
    difference: float
    """Their mean; with direction "min", a negative one is an improvement."""
    sd: float
    """Their sample standard deviation; 0 for a single pair."""
    interval: Interval | None
    """BCa bootstrap interval of the mean; None below three pairs, too few to resample."""
    p: float
    """Two-sided p of the study's test, before any correction."""
    direction: Direction

    @property
    def alike(self) -> bool:
        """True if all pairs are equal, as when a search has chosen the settings of the arm it is compared with."""
        return self.n > 1 and self.difference == 0 and self.sd == 0

    @property
    def improves(self) -> bool:
        return self.difference > 0 if self.direction == "max" else self.difference < 0


def compute_mean(values: Sequence[float]) -> Mean:
    """Return the mean with its 95 % t interval: x̄ ± t₀.₉₇₅,ₙ₋₁ · s/√n.

    Raises ValueError for no values or values that are not finite.
    """
    x = _check_finite(values)
    mean = float(x.mean())
    if len(x) < 2:
        return Mean(len(x), mean, None)
    half = float(scipy.special.stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(len(x), mean, Interval(mean - half, mean + half))


def compare_paired(
    a: Sequence[float],
    b: Sequence[float],
    direction: Direction,
    test: Test = "sign-flip",
    resolution: float = RESOLUTION,
) -> Paired:
    """Compare the paired runs `a` and `b`, in which equal positions share a seed; see `subtract_paired`.

    Raises ValueError for unequal lengths, no pairs, or values that are not finite.
    """
    return summarize_differences(subtract_paired(a, b, resolution), direction, test, resolution)


def summarize_differences(
    differences: Sequence[float] | NDArray[np.float64],
    direction: Direction,
    test: Test = "sign-flip",
    resolution: float = RESOLUTION,
) -> Paired:
    """Return mean, spread, interval and p value of paired differences; those up to `resolution` are ties.

    Raises ValueError for no differences, or values that are not finite.
    """
    x = _check_finite(differences)
    x = np.where(np.abs(x) <= resolution, 0.0, x)
    return Paired(
        n=len(x),
        difference=float(x.mean()),
        sd=float(x.std(ddof=1)) if len(x) > 1 else 0.0,
        interval=compute_bca_interval(x),
        p=compute_sign_p(x) if test == "sign" else compute_sign_flip_p(x),
        direction=direction,
    )


def subtract_paired(a: Sequence[float], b: Sequence[float], resolution: float = RESOLUTION) -> NDArray[np.float64]:
    """Return a − b by pair, and 0 for pairs that are tied, whose difference may be rounding alone.

    Tied are those that differ by at most the metric's `resolution`, or by at most `TIE` of the larger value of the pair
    or of the median magnitude of all values, which counts where scores of a pair are zero but for rounding.
    Raises ValueError for unequal lengths, no pairs, or values that are not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    x, y = _check_finite(a), _check_finite(b)
    typical = np.median(np.abs(np.concatenate([x, y])))
    scale = np.maximum(np.maximum(np.abs(x), np.abs(y)), typical)
    return np.where(np.isclose(x, y, rtol=0, atol=np.maximum(TIE * scale, resolution)), 0.0, x - y)


def weight_alike(groups: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return all values, scaled so that their mean is the mean of the groups' means."""
    total = sum(map(len, groups))
    return np.concatenate([group * total / (len(groups) * len(group)) for group in groups])


def compute_bca_interval(differences: Sequence[float] | NDArray[np.float64]) -> Interval | None:
    """Return the bias-corrected and accelerated bootstrap interval of the mean; None below three values.

    Equal values give an interval of zero width. If there are too few distinct values to define the acceleration, the
    percentile interval is used.
    Source: Efron 1987, "Better bootstrap confidence intervals".
    """
    x = _check_finite(differences)
    if len(x) < 3:
        return None
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):  # equal but for rounding
        return Interval(float(x.mean()), float(x.mean()))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns about the degenerate case that the percentile method handles
            drawn = scipy.stats.bootstrap((x,), np.mean, method=method, rng=np.random.default_rng(0))
        found = drawn.confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return Interval(float(found.low), float(found.high))


def compute_sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the two-sided p value of the sign-flip test on the mean; exact up to `MAX_EXACT_PAIRS` values.

    Source: Fisher 1935, "The Design of Experiments", §21.
    """
    x = _check_finite(differences)
    return _count_at_least(np.abs(_sum_sign_flips(x)), abs(float(x.sum())), x)


def compute_margin_p(
    differences: Sequence[float] | NDArray[np.float64], margin: float, direction: Direction, test: Test = "sign-flip"
) -> float:
    """Return the one-sided p of "worse by `margin` or more": that margin ± difference is above 0, by either test.

    Source: the tests of this module on shifted differences, as non-inferiority trials shift the t test; Wellek 2010,
    "Testing Statistical Hypotheses of Equivalence and Noninferiority", chapter 2.
    """
    x = margin + (1.0 if direction == "max" else -1.0) * _check_finite(differences)
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
    x = _check_finite(differences)
    untied = int(np.count_nonzero(x))
    if not untied:
        return 1.0
    return float(scipy.stats.binomtest(int((x > 0).sum()), untied, alternative=alternative).pvalue)


def is_skewed(differences: Sequence[float] | NDArray[np.float64]) -> bool:
    """Return whether values are more skewed than normal ones; False below eight, too few for the test.

    Source: D'Agostino 1970, "Transformation to normality of the null distribution of g1".
    """
    x = _check_finite(differences)
    if len(x) < 8 or np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):  # or equal but for rounding
        return False
    return bool(scipy.stats.skewtest(x).pvalue <= SKEWED)


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


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values in the given order: max over i ≤ k of (m − i + 1) · p₍ᵢ₎, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    m, running = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def decide_verdict(
    comparison: Paired, adjusted_p: float, adjusted_margin_p: float | None = None, level: float = LEVEL
) -> Verdict:
    """Return better or worse if the corrected p is at most `level`; else not worse if that of the margin is."""
    if adjusted_p <= level:
        return "better" if comparison.improves else "worse"
    return "not worse" if adjusted_margin_p is not None and adjusted_margin_p <= level else "undecided"


def _check_finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {list(values)}")
    return x

"""The statistics of a comparison: paired differences over shared seeds, and their intervals.

Two arms are compared by the differences of runs that share a seed: the same initial weights, data order and views.
sign_tests.py has the tests of these differences, verdicts.py what follows from them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats is imported when it is first used: it takes a second
from numpy.typing import NDArray

from reports.analysis.sign_tests import TIE, Test, check_finite, compute_sign_flip_p, compute_sign_p
from study.trial import Direction

RESOLUTION = 1e-10
"""Difference up to which two runs are tied unless their metric has other digits: that of a metric of four digits."""
SKEWED = 0.05
"""p of D'Agostino's test of skewness up to which differences count as skewed."""


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

    @property
    def half_width(self) -> float:
        """Half the width of the interval; 0 for a single run."""
        return self.interval.high - self.mean if self.interval else 0.0


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
    x = check_finite(values)
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
    x = check_finite(differences)
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
    x, y = check_finite(a), check_finite(b)
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
    x = check_finite(differences)
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


def is_skewed(differences: Sequence[float] | NDArray[np.float64]) -> bool:
    """Return whether values are more skewed than normal ones; False below eight, too few for the test.

    Source: D'Agostino 1970, "Transformation to normality of the null distribution of g1".
    """
    x = check_finite(differences)
    if len(x) < 8 or np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):  # or equal but for rounding
        return False
    return bool(scipy.stats.skewtest(x).pvalue <= SKEWED)

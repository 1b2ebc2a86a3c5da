"""The statistics of a comparison: paired differences over shared seeds, intervals, tests, verdicts and power.

Two arms are compared by the differences of runs that share a seed: the same initial weights, data order and views. If
the arms did not differ, each difference would be as likely to have the opposite sign; the p value of the sign-flip test
is the share of all sign combinations whose mean is at least as far from zero as the observed one. With n pairs it is
at least 2/2ⁿ, so a few seeds cannot decide, however large the effect.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Direction = Literal["max", "min"]
Verdict = Literal["better", "worse", "undecided"]

LEVEL = 0.05
"""Significance level of verdicts, after correction."""
POWER = 0.8
"""Power with which the proposed number of seeds finds the observed difference."""
MAX_EXACT_PAIRS = 20
"""Largest number of pairs for which all 2ⁿ sign flips are counted; beyond it, `RESAMPLES` random ones are drawn."""
RESAMPLES = 99_999
SIMULATED_STUDIES, MAX_SIMULATED_SEEDS = 4000, 14
"""Simulated studies per value of the power, and the largest number of pairs for which it is simulated."""
MAX_SEEDS = 1000
"""Largest number of seeds that a report proposes; more are rarely affordable."""


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
    """Two-sided sign-flip p, before any correction."""
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
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(len(x), mean, Interval(mean - half, mean + half))


def compare_paired(a: Sequence[float], b: Sequence[float], direction: Direction) -> Paired:
    """Compare the paired runs `a` and `b`, in which equal positions share a seed.

    Raises ValueError for unequal lengths, no pairs, or values that are not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    differences = _check_finite(a) - _check_finite(b)
    n = len(differences)
    return Paired(
        n=n,
        difference=float(differences.mean()),
        sd=float(differences.std(ddof=1)) if n > 1 else 0.0,
        interval=compute_bca_interval(differences),
        p=compute_sign_flip_p(differences),
        direction=direction,
    )


def compute_bca_interval(differences: Sequence[float] | NDArray[np.float64]) -> Interval | None:
    """Return the bias-corrected and accelerated bootstrap interval of the mean; None below three values.

    Equal values give an interval of zero width. If there are too few distinct values to define the acceleration, the
    percentile interval is used.
    Source: Efron 1987, "Better bootstrap confidence intervals".
    """
    x = _check_finite(differences)
    if len(x) < 3:
        return None
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return Interval(float(x.mean()), float(x.mean()))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns about the degenerate case that the percentile method handles
            found = stats.bootstrap((x,), np.mean, method=method, rng=np.random.default_rng(0)).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return Interval(float(found.low), float(found.high))


def compute_sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the two-sided p value of the sign-flip test on the mean; exact up to `MAX_EXACT_PAIRS` values.

    Source: Fisher 1935, "The Design of Experiments", §21.
    """
    x = _check_finite(differences)
    # tolerance: equal sums may differ by rounding, since they add the values in another order
    seen = abs(float(x.sum())) - 1e-12 * float(np.abs(x).sum())
    if len(x) <= MAX_EXACT_PAIRS:
        return float((np.abs(_sum_sign_flips(x)) >= seen).mean())
    signs = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), size=(RESAMPLES, len(x)))
    return float((1 + (np.abs(signs @ x) >= seen).sum()) / (1 + RESAMPLES))


def _sum_sign_flips(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of `x` under all sign flips that keep the first sign; the others are their negatives."""
    sums = x[:1]
    for value in x[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


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


def decide_verdict(comparison: Paired, adjusted_p: float, level: float = LEVEL) -> Verdict:
    """Return better or worse if the corrected p is at most `level`, else undecided."""
    if adjusted_p > level:
        return "undecided"
    return "better" if comparison.improves else "worse"


def smallest_p(n: int) -> float:
    """Return the smallest p value of the sign-flip test with n pairs: 2/2ⁿ."""
    return min(1.0, 2.0 / 2.0**n)


def seeds_to_decide(comparisons: int, level: float = LEVEL) -> int:
    """Return the fewest seeds n that allow a verdict other than undecided: 2/2ⁿ · comparisons ≤ level."""
    return max(1, math.ceil(math.log2(2 * max(1, comparisons) / level) - 1e-12))


def seeds_needed(difference: float, sd: float, comparisons: int = 1, level: float = LEVEL) -> int | None:
    """Return the number of seeds that finds an effect of this size with 80 % power, at level/comparisons.

    At least `seeds_to_decide`; None for a difference of zero, or if `MAX_SEEDS` are too few.
    """
    fewest = max(2, seeds_to_decide(comparisons, level))
    if difference == 0:
        return None
    if sd == 0:
        return fewest
    candidates = np.arange(fewest, MAX_SEEDS + 1)
    # the t test has at least the power of the sign-flip test: fewer seeds than it needs are never enough
    enough = candidates[_compute_t_power(abs(difference) / sd, candidates, level / max(1, comparisons)) >= POWER]
    found = (int(n) for n in enough if estimate_power(difference, sd, int(n), comparisons, level) >= POWER)
    return next(found, None)


def estimate_power(difference: float, sd: float, n: int, comparisons: int = 1, level: float = LEVEL) -> float:
    """Return the probability that n seeds find an effect of this size, for normal differences and at level/comparisons.

    Up to `MAX_SIMULATED_SEEDS` seeds it is simulated: p values of few seeds are coarse, so the sign-flip test has much
    less power than the paired t test. Beyond, it is the power of the t test, from which it differs by under two points.
    Source: Lehmann & Romano 2005, "Testing Statistical Hypotheses", §5.9–5.10.
    """
    effect, each = abs(difference) / sd, level / max(1, comparisons)
    if n > MAX_SIMULATED_SEEDS:
        return float(_compute_t_power(effect, np.array([n]), each)[0])
    return _simulate_power(round(effect, 6), n, each)


@lru_cache(maxsize=1024)
def _simulate_power(effect: float, n: int, level: float) -> float:
    """Return the share of simulated studies of n normal differences in which the sign-flip p is at most `level`."""
    allowed = math.floor(level * 2 ** (n - 1) + 1e-9)  # among the half of all flips that keeps the first sign
    studies = np.random.default_rng(n).normal(effect, 1.0, (SIMULATED_STUDIES, n))
    flips = np.array(list(itertools.product([1.0, -1.0], repeat=n - 1))).reshape(-1, n - 1).T
    found = 0
    for some in np.array_split(studies, max(1, len(flips.T) // 64)):
        seen = np.abs(some.sum(axis=1, keepdims=True)) * (1 - 1e-12)
        found += int(((np.abs(some[:, :1] + some[:, 1:] @ flips) >= seen).sum(axis=1) <= allowed).sum())
    return found / SIMULATED_STUDIES


def _compute_t_power(effect: float, n: NDArray[np.int_], level: float) -> NDArray[np.float64]:
    """Return the power of the two-sided paired t test for a standardised effect, without the negligible far tail."""
    critical = stats.t.ppf(1 - level / 2, n - 1)
    found: NDArray[np.float64] = np.nan_to_num(stats.nct.sf(critical, n - 1, effect * np.sqrt(n)), nan=1.0)
    return found


def _check_finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {list(values)}")
    return x

"""What a comparison may claim: paired differences over shared seeds, their uncertainty, and a verdict.

Pure functions on numbers; tables.py decides what is compared with what. Two arms are compared by the differences
of runs that share a seed: the same initial weights, data order and views. The sign-flip test asks how often chance
alone, which would give each difference either sign, yields a mean as far from zero as the one seen. With n pairs
it cannot give less than 2/2ⁿ, so few seeds decide nothing, however large the effect.
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
POWER = 0.8
MAX_EXACT_PAIRS = 20
"""Pairs up to which all 2ⁿ sign flips are counted; beyond, `RESAMPLES` seeded random ones stand for them."""
RESAMPLES = 99_999
SIMULATED_STUDIES, MAX_SIMULATED_SEEDS = 4000, 14
"""Studies per power that is simulated, and the most pairs for which it is."""
MAX_SEEDS = 1000
"""More seeds than this are not proposed to anybody."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """The mean of one cell's runs; without an interval where fewer than two runs exist."""

    n: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Paired:
    """The differences a − b of paired runs."""

    n: int
    difference: float
    """Their mean, as it is: with direction "min" a negative one is good."""
    sd: float
    """Their sample standard deviation; 0 for a single pair."""
    interval: Interval | None
    """BCa bootstrap interval of the mean; None below three pairs, where resampling says nothing."""
    p: float
    """Two-sided sign-flip p, before any correction."""
    direction: Direction

    @property
    def alike(self) -> bool:
        """Whether each pair gave the same, as where a search has chosen the settings it is compared with."""
        return self.n > 1 and self.difference == 0 and self.sd == 0

    @property
    def improves(self) -> bool:
        return self.difference > 0 if self.direction == "max" else self.difference < 0


def compute_mean(values: Sequence[float]) -> Mean:
    """The mean with its 95 % t interval: x̄ ± t₀.₉₇₅,ₙ₋₁ · s/√n.

    Raises ValueError for no values or values that are not finite.
    """
    x = _check_finite(values)
    mean = float(x.mean())
    if len(x) < 2:
        return Mean(len(x), mean, None)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(len(x), mean, Interval(mean - half, mean + half))


def compare_paired(a: Sequence[float], b: Sequence[float], direction: Direction) -> Paired:
    """Compare the paired runs `a` and `b`; equal positions share a seed.

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
    """The bias-corrected and accelerated bootstrap interval of the mean; None below three values.

    Equal values give an interval without width. Where so few distinct values exist that the acceleration is
    undefined, the percentile interval takes its place.
    Source: Efron 1987, "Better bootstrap confidence intervals".
    """
    x = _check_finite(differences)
    if len(x) < 3:
        return None
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return Interval(float(x.mean()), float(x.mean()))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of the degenerate case, which the next method answers
            found = stats.bootstrap((x,), np.mean, method=method, rng=np.random.default_rng(0)).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return Interval(float(found.low), float(found.high))


def compute_sign_flip_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of the sign-flip test on the mean; exact up to `EXACT_UP_TO` values.

    Source: Fisher 1935, "The Design of Experiments", §21.
    """
    x = _check_finite(differences)
    # Sums of the same values in another order differ by rounding, and are as extreme as each other.
    seen = abs(float(x.sum())) - 1e-12 * float(np.abs(x).sum())
    if len(x) <= MAX_EXACT_PAIRS:
        return float((np.abs(_sum_sign_flips(x)) >= seen).mean())
    signs = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), size=(RESAMPLES, len(x)))
    return float((1 + (np.abs(signs @ x) >= seen).sum()) / (1 + RESAMPLES))


def _sum_sign_flips(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of `x` under sign flips, the first value's sign kept: the other half are their negatives."""
    sums = x[:1]
    for value in x[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: max over i ≤ k of (m − i + 1) · p₍ᵢ₎, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    m, running = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def decide_verdict(comparison: Paired, adjusted_p: float, level: float = LEVEL) -> Verdict:
    """Better or worse where the corrected p is at most `level`, else undecided."""
    if adjusted_p > level:
        return "undecided"
    return "better" if comparison.improves else "worse"


def smallest_p(n: int) -> float:
    """The smallest p the sign-flip test can give with n pairs: 2/2ⁿ."""
    return min(1.0, 2.0 / 2.0**n)


def seeds_to_decide(comparisons: int, level: float = LEVEL) -> int:
    """The fewest seeds with which any verdict other than undecided is possible: 2/2ⁿ · comparisons ≤ level."""
    return max(1, math.ceil(math.log2(2 * max(1, comparisons) / level) - 1e-12))


def seeds_needed(difference: float, sd: float, comparisons: int = 1, level: float = LEVEL) -> int | None:
    """Seeds that find an effect of this size with 80 % power, at level/comparisons.

    Never fewer than `seeds_to_decide`. None for no effect at all, or where `MOST_SEEDS` would not do.
    """
    fewest = max(2, seeds_to_decide(comparisons, level))
    if difference == 0:
        return None
    if sd == 0:
        return fewest
    candidates = np.arange(fewest, MAX_SEEDS + 1)
    # The t test bounds the sign-flip test's power, so fewer seeds than it asks for need no simulation.
    enough = candidates[_compute_t_power(abs(difference) / sd, candidates, level / max(1, comparisons)) >= POWER]
    found = (int(n) for n in enough if estimate_power(difference, sd, int(n), comparisons, level) >= POWER)
    return next(found, None)


def estimate_power(difference: float, sd: float, n: int, comparisons: int = 1, level: float = LEVEL) -> float:
    """The chance that n seeds find an effect of this size, with normal differences and at level/comparisons.

    Simulated up to `MAX_SIMULATED_SEEDS` seeds: with few, the sign-flip test cannot use its whole level, and finds much
    less than the paired t test. Beyond, the t test's power, which it meets within two points.
    Source: Lehmann & Romano 2005, "Testing Statistical Hypotheses", §5.9–5.10.
    """
    effect, each = abs(difference) / sd, level / max(1, comparisons)
    if n > MAX_SIMULATED_SEEDS:
        return float(_compute_t_power(effect, np.array([n]), each)[0])
    return _simulate_power(round(effect, 6), n, each)


@lru_cache(maxsize=1024)
def _simulate_power(effect: float, n: int, level: float) -> float:
    """The share of simulated studies of n normal differences in which the sign-flip p is at most `level`."""
    allowed = math.floor(level * 2 ** (n - 1) + 1e-9)  # of the half of all flips that keeps the first sign
    studies = np.random.default_rng(n).normal(effect, 1.0, (SIMULATED_STUDIES, n))
    flips = np.array(list(itertools.product([1.0, -1.0], repeat=n - 1))).reshape(-1, n - 1).T
    found = 0
    for some in np.array_split(studies, max(1, len(flips.T) // 64)):
        seen = np.abs(some.sum(axis=1, keepdims=True)) * (1 - 1e-12)
        found += int(((np.abs(some[:, :1] + some[:, 1:] @ flips) >= seen).sum(axis=1) <= allowed).sum())
    return found / SIMULATED_STUDIES


def _compute_t_power(effect: float, n: NDArray[np.int_], level: float) -> NDArray[np.float64]:
    """Power of the two-sided paired t test for a standardised effect; the far tail is left out, being negligible."""
    critical = stats.t.ppf(1 - level / 2, n - 1)
    found: NDArray[np.float64] = np.nan_to_num(stats.nct.sf(critical, n - 1, effect * np.sqrt(n)), nan=1.0)
    return found


def _check_finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"need one or more finite values, got {list(values)}")
    return x

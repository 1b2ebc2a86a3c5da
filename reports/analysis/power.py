"""The power of the sign-flip test: how many seeds a verdict takes, and how many find a difference of a given size."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import scipy  # scipy.special is imported when it is first used
from numpy.typing import NDArray

from reports.analysis.sign_tests import LEVEL

POWER = 0.8
"""Power with which the proposed number of seeds finds the observed difference."""
SIMULATED_STUDIES, MAX_SIMULATED_SEEDS = 4000, 14
"""Simulated studies per value of the power, and the largest number of pairs for which it is simulated."""
MAX_SEEDS = 1000
"""Largest number of seeds that a report proposes; more are rarely affordable."""


def smallest_p(n: int) -> float:
    """Return the smallest p value of the sign-flip test with n pairs: 2/2ⁿ."""
    return min(1.0, math.ldexp(2.0, -n))


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
    critical = scipy.special.stdtrit(n - 1, 1 - level / 2)
    missed = scipy.special.nctdtr(n - 1, effect * np.sqrt(n), critical)
    found: NDArray[np.float64] = 1 - np.nan_to_num(missed, nan=0.0)  # nan where the power is 1 but for rounding
    return found

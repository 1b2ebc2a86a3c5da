"""The test of paired differences for skewness, which the sign-flip test assumes away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # scipy.special is imported when it is first used
from numpy.typing import NDArray

SKEWED = 0.05
"""p of D'Agostino's test of skewness up to which differences count as skewed."""


def is_skewed(differences: Sequence[float] | NDArray[np.float64]) -> bool:
    """Return whether values are more skewed than normal ones; False below eight, too few for the test.

    Source: D'Agostino 1970, "Transformation to normality of the null distribution of g1".
    """
    x = np.asarray(differences, dtype=np.float64)
    if len(x) < 8 or np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):  # or equal but for rounding
        return False
    n, deviations = float(len(x)), x - x.mean()
    skewness = (deviations**3).mean() / (deviations**2).mean() ** 1.5
    kurtosis = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))  # of g1
    spread = math.sqrt(2 * (kurtosis - 1)) - 1
    scaled = skewness * math.sqrt((n + 1) * (n + 3) / (6 * (n - 2))) / math.sqrt(2 / (spread - 1))
    z = math.asinh(scaled) / math.sqrt(0.5 * math.log(spread))
    return bool(2 * scipy.special.ndtr(-abs(z)) <= SKEWED)

"""What a study has spent of its hours, over all its runs, and when that is enough.

Both sums follow from the rows alone, so that a kill loses no more than the rows it loses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from study.study import Budget

HOUR = 3600.0


def wall_seconds(starts: Sequence[datetime], seen: Iterable[datetime]) -> float:
    """How long earlier runs took: each from its start to the last sign of life before the next one's start."""
    signs = sorted(seen)
    total = 0.0
    for number, start in enumerate(starts):
        later = starts[number + 1] if number + 1 < len(starts) else None
        within = [sign for sign in signs if sign > start and (later is None or sign < later)]
        total += (within[-1] - start).total_seconds() if within else 0.0
    return total


def gpu_seconds(trials: Iterable[Mapping[str, Any]]) -> float:
    """GPU time of the trials' epochs; a trial's share of a GPU counts."""
    return float(sum(row["seconds"] * (row["gpus"] or 0.0) for row in trials))


def used_up(budget: Budget, wall: float, gpu: float) -> str:
    """Which cap is reached, in seconds of wall clock and GPU; empty while the study may go on."""
    for name, cap, spent in (("wall_hours", budget.wall_hours, wall), ("gpu_hours", budget.gpu_hours, gpu)):
        if cap is not None and spent >= cap * HOUR:
            return f"{name} {cap:.3g} used up ({spent / HOUR:.3g} h)"
    return ""

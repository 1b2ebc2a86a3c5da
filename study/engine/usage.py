"""The hours that a study has used over all its runs, their cost, and the caps of its budget.

GPU time follows from the rows. Wall-clock time is what each run recorded at its end, and follows from the rows only for
a run that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from study.study import Budget

HOUR = 3600.0


class Usage:
    """Wall-clock and GPU seconds of a study while it runs."""

    def __init__(self) -> None:
        self.earlier_wall_seconds, self.gpu_seconds = 0.0, 0.0
        """Duration of earlier runs; GPU time of all runs."""
        self._started = time.monotonic()

    @property
    def run_seconds(self) -> float:
        """Duration of this run so far."""
        return time.monotonic() - self._started

    @property
    def wall_seconds(self) -> float:
        """Duration of all runs so far."""
        return self.earlier_wall_seconds + self.run_seconds


def sum_wall_seconds(runs: Sequence[Mapping[str, Any]], timestamps: Iterable[datetime]) -> float:
    """Return the duration of earlier runs, as study.json lists them; `timestamps` are those of their rows.

    A killed run recorded no `seconds`: it counts from its start to its last row before the next run's start.
    """
    stamps = sorted(timestamps)
    starts = [datetime.fromisoformat(run["started"]) for run in runs]
    total = 0.0
    for run, start, next_start in zip_longest(runs, starts, starts[1:]):
        within = [stamp for stamp in stamps if stamp > start and (next_start is None or stamp < next_start)]
        until_last_row = (within[-1] - start).total_seconds() if within else 0.0
        total += float(run.get("seconds") or until_last_row)
    return total


def sum_gpu_seconds(trials: Iterable[Mapping[str, Any]], epochs: Iterable[Mapping[str, Any]]) -> float:
    """Return the GPU time of all recorded epochs; a trial on a share of a GPU counts that share."""
    shares = {row["trial_id"]: row["gpus"] or 0.0 for row in trials}
    return float(sum(row["seconds"] * shares.get(row["trial_id"], 0.0) for row in epochs))


def find_exhausted_cap(budget: Budget, wall_seconds: float, gpu_seconds: float) -> str:
    """Return which cap of the budget is reached, with the hours used; empty if none is."""
    cost = format_cost(gpu_seconds / HOUR, budget.usd_per_hour)
    caps = (("wall_hours", budget.wall_hours, wall_seconds, ""), ("gpu_hours", budget.gpu_hours, gpu_seconds, cost))
    for name, cap, used, suffix in caps:
        if cap is not None and used >= cap * HOUR:
            return f"{name} {cap:.3g} used up ({used / HOUR:.3g} h{suffix})"
    return ""


def format_cost(gpu_hours: float, usd_per_hour: float | None) -> str:
    """Return the cost of GPU time, to follow it: ", 8.00 USD"; empty without a price or GPU time."""
    return f", {gpu_hours * usd_per_hour:,.2f} USD" if gpu_hours and usd_per_hour else ""

"""What a study has spent of its hours, over all its runs, and when that is enough.

GPU time follows from the rows, wall clock from what each run wrote down at its end; of a run that was killed, from the
rows too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from study.study import Budget

HOUR = 3600.0


def wall_seconds(runs: Sequence[Mapping[str, Any]], seen: Iterable[datetime]) -> float:
    """How long earlier runs took, as study.json lists them.

    One that was killed could not write down its `seconds`: it counts from its start to the last sign of life before
    the next one's start.
    """
    signs = sorted(seen)
    starts = [datetime.fromisoformat(run["started"]) for run in runs]
    total = 0.0
    for run, start, later in zip_longest(runs, starts, starts[1:]):
        within = [sign for sign in signs if sign > start and (later is None or sign < later)]
        lived = (within[-1] - start).total_seconds() if within else 0.0
        total += float(run.get("seconds") or lived)
    return total


def gpu_seconds(trials: Iterable[Mapping[str, Any]], epochs: Iterable[Mapping[str, Any]]) -> float:
    """GPU time of all epochs on record; a trial's share of a GPU counts."""
    shares = {row["trial_id"]: row["gpus"] or 0.0 for row in trials}
    return float(sum(row["seconds"] * shares.get(row["trial_id"], 0.0) for row in epochs))


def exhausted_cap(budget: Budget, wall: float, gpu: float) -> str:
    """Which cap is reached, in seconds of wall clock and GPU; empty while the study may go on."""
    for name, cap, spent in (("wall_hours", budget.wall_hours, wall), ("gpu_hours", budget.gpu_hours, gpu)):
        if cap is not None and spent >= cap * HOUR:
            return f"{name} {cap:.3g} used up ({spent / HOUR:.3g} h)"
    return ""

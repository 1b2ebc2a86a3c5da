"""Settings that are numbers or schedules: their value at a progress, and checks of settings, which let domains pass.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Protocol

from study.errors import InputError
from study.space.domains import is_unresolved
from study.trial import Progress as Progress


class Schedule(Protocol):
    """A number that depends on progress."""

    def value_at(self, progress: Progress) -> float:
        """Return the value at this progress."""

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value it takes, for range checks."""

    # A schedule that changes only between epochs also has `constant_within_epochs: ClassVar[bool] = True`.


FloatOrSchedule = float | Schedule


def value_at(value: FloatOrSchedule, progress: Progress) -> float:
    """Return a number unchanged, or a schedule's value at `progress`."""
    return float(value) if isinstance(value, int | float) else value.value_at(progress)


def check_range(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Check that a number, or both bounds of a schedule, are finite and in low ≤ x ≤ high, above < x < below.

    Values that contain a domain pass: the engine resolves domains at their ends before a study starts, which runs this
    check again on the resolved values.
    Raises InputError naming the setting, its value and the allowed range.
    """
    if is_unresolved(value):
        return
    if not is_number(value) and not hasattr(value, "bounds"):
        raise InputError(f"{name} is {value!r}; allowed are a number, a schedule, or a domain of numbers")
    limits = ((low, "≥"), (above, ">"), (high, "≤"), (below, "<"))
    allowed = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if math.isfinite(limit))
    for end in (float(value),) if is_number(value) else value.bounds():
        if not (math.isfinite(end) and low <= end <= high and above < end < below):
            raise InputError(f"{name} is {end:g}; allowed is a finite number {allowed}".rstrip())


def is_number(value: Any) -> bool:
    """Return whether `value` is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_type(name: str, value: Any, kinds: Any, allowed: str) -> None:
    """Check the type of a setting; raises InputError unless it is of `kinds`, or a domain that is not resolved yet."""
    if not is_unresolved(value) and not isinstance(value, kinds):
        raise InputError(f"{name} is {value!r}; allowed is {allowed}")


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Check a setting; raises InputError unless it is one of these, or a domain that is not resolved yet."""
    if not is_unresolved(value) and value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")


def warmup_factor(share: FloatOrSchedule, progress: Progress) -> float:
    """Return min((epoch + 1)/(share·epochs), 1), by which the weight of a loss grows over a share of the run."""
    # max: a warm-up of at most one epoch, including 0, is complete in the first
    return min((progress.epoch + 1) / max(value_at(share, progress) * progress.epochs, 1.0), 1.0)

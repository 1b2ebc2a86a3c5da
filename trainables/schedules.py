"""Schedules: pure functions of progress. What moves over epochs in a study moves by one of these.

A schedule's own numbers may be domains, so `Stages(0.0, uniform(0.1, 0.6), stages=integer(2, 8))` is a search space.
`at` reads a schedule or a plain number alike. Torch is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

from study.errors import InputError

SHAPES = ("linear", "cosine")


@dataclass(frozen=True)
class Progress:
    """How far a training run is: `epoch` whole epochs done of `epochs`, plus the part `within` the current one."""

    epoch: int
    epochs: int
    within: float = 0.0

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1)."""
        return (self.epoch + self.within) / self.epochs


class Schedule(Protocol):
    """A number that depends on progress."""

    def at(self, progress: Progress) -> float: ...

    def ends(self) -> tuple[float, float]:
        """The smallest and largest value it takes, for range checks."""


Number = float | Schedule


@dataclass(frozen=True)
class Stages:
    """From `start` to `end` in `stages` equal plateaus of the run: value(i) = start + (end − start)·f(i/(stages−1)).

    f is the identity for "linear" and (1 − cos πx)/2 for "cosine". With one stage the value is `end` throughout.
    Stages(0, 0.4, stages=4) is 0, 13.3, 26.7, 40 %: logits pruning as published (P1).
    Raises InputError for an unknown shape or fewer than one stage.
    """

    start: float
    end: float
    stages: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        require("stages", self.stages, low=1)
        if isinstance(self.shape, str) and self.shape not in SHAPES:
            raise InputError(f"shape {self.shape!r} of a schedule: allowed are {', '.join(SHAPES)}")

    def at(self, progress: Progress) -> float:
        stage = int(progress.epoch * self.stages / progress.epochs)
        x = stage / (self.stages - 1) if self.stages > 1 else 1.0
        bent = x if self.shape == "linear" else (1 - math.cos(math.pi * x)) / 2
        return self.start + (self.end - self.start) * bent

    def ends(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Drops:
    """`start`, multiplied by `factor` at each of the given shares of the run: the field's step schedule."""

    start: float
    factor: float = 0.1
    shares: tuple[float, ...] = (5 / 8, 6 / 8, 7 / 8)

    def at(self, progress: Progress) -> float:
        return self.start * self.factor ** sum(progress.epoch >= share * progress.epochs for share in self.shares)

    def ends(self) -> tuple[float, float]:
        return self.start * self.factor ** len(self.shares), self.start


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine, moving at every step: end + (start − end)·(1 + cos π·fraction)/2."""

    start: float
    end: float = 0.0

    def at(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress.fraction)) / 2

    def ends(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


def at(value: Number, progress: Progress) -> float:
    """A number as it is, a schedule's value at `progress`."""
    return float(value) if isinstance(value, int | float) else value.at(progress)


def require(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Check that a number, or all of a schedule, is finite and within low ≤ x ≤ high, above < x < below.

    A domain passes: the engine resolves it at both its ends before a study starts, and then this is asked again.
    Raises InputError naming the setting, its value and what is allowed.
    """
    for end in _ends(value):
        if not (math.isfinite(end) and low <= end <= high and above < end < below):
            limits = ((low, "≥"), (above, ">"), (high, "≤"), (below, "<"))
            allowed = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if math.isfinite(limit))
            raise InputError(f"{name} is {end:g}; allowed is a finite number {allowed}".rstrip())


def scheduled(setting: Any, progress: Progress, path: str = "") -> Mapping[str, float]:
    """Every schedule within a (resolved) dataclass, by dotted name, with its value at `progress`."""
    if hasattr(setting, "at"):
        return {path: setting.at(progress)}
    values: dict[str, float] = {}
    for field in fields(setting) if is_dataclass(setting) and not isinstance(setting, type) else ():
        values |= scheduled(getattr(setting, field.name), progress, f"{path}.{field.name}" if path else field.name)
    return values


def _ends(value: Any) -> tuple[float, ...]:
    if isinstance(value, int | float):
        return (float(value),)
    if hasattr(value, "ends"):
        ends = (
            value.ends()
            if all(isinstance(getattr(value, f.name), int | float | str | tuple) for f in fields(value))
            else ()
        )
        return tuple(ends)
    return ()

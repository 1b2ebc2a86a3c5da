"""Schedules: pure functions of progress. What moves over epochs in a study moves by one of these.

A schedule's own numbers may be domains, so `Stages(0.0, uniform(0.1, 0.6), stages=integer(2, 8))` is a search space.
`at` reads a schedule or a plain number alike. Torch is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import accumulate
from typing import Any, Protocol

from study.errors import InputError
from study.space.domains import find_domains

SHAPES = ("linear", "cosine", "step")


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
class Staircase:
    """From `start` to `end` in n = `stages` equal plateaus of the run: value(i) = start + (end − start)·f(i/(n−1)).

    f(x) is x for "linear", (1 − cos πx)/2 for "cosine"; for "step" it is 0 in the first half of the stages and 1 in the
    second, to which a middle one belongs. With one the value is `end` throughout. A run of fewer epochs has a plateau
    for each, so that it too reaches both ends.
    Stages(0, 0.4, stages=4) is 0, 13.3, 26.7, 40 %: logits pruning as published (P1).
    Raises InputError for an unknown shape, fewer than one stage, or ends that are not finite.
    """

    start: float
    end: float
    stages: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        _require_finite_ends(self)
        check_range("stages", self.stages, low=1)
        if is_number(self.stages) and self.stages != int(self.stages):
            raise InputError(f"stages is {self.stages}; allowed is a whole number, such as integer(1, 8)")
        if not is_unresolved(self.shape) and self.shape not in SHAPES:
            raise InputError(f"shape {self.shape!r} of a schedule: allowed are {', '.join(SHAPES)}")

    def at(self, progress: Progress) -> float:
        stages = min(self.stages, progress.epochs)
        stage = int(progress.epoch * stages / progress.epochs)
        x = stage / (stages - 1) if stages > 1 else 1.0
        return self.start + (self.end - self.start) * _bent(x, self.shape)

    def ends(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


def _bent(x: float, shape: str) -> float:
    if shape == "step":
        return float(x >= 0.5)
    return x if shape == "linear" else (1 - math.cos(math.pi * x)) / 2


@dataclass(frozen=True)
class MultiStep:
    """`start`, multiplied by `factor` at each of the given shares of the run: the field's step schedule."""

    start: float
    factor: float = 0.1
    shares: tuple[float, ...] = (5 / 8, 6 / 8, 7 / 8)

    def __post_init__(self) -> None:
        check_range("factor", self.factor, low=0, high=1)
        if not is_unresolved(self.shares) and not all(0 < share < 1 for share in self.shares):
            raise InputError(f"shares is {self.shares}; allowed are shares of the run between 0 and 1")

    def at(self, progress: Progress) -> float:
        return self.start * self.factor ** sum(progress.epoch >= share * progress.epochs for share in self.shares)

    def ends(self) -> tuple[float, float]:
        return self.start * self.factor ** len(self.shares), self.start


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine, moving at every step: end + (start − end)·(1 + cos π·fraction)/2."""

    start: float
    end: float = 0.0

    def __post_init__(self) -> None:
        _require_finite_ends(self)

    def at(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress.fraction)) / 2

    def ends(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Polynomial:
    """From `start` to 0, moving at every step: start·(1 − fraction)^power, the schedule of segmentation's recipes.

    Source: Chen et al. 2018 (DeepLab), section 4.1, whose power is 0.9.
    """

    start: float
    power: float = 0.9

    def __post_init__(self) -> None:
        check_range("power", self.power, above=0)

    def at(self, progress: Progress) -> float:
        return float(self.start * (1 - progress.fraction) ** self.power)

    def ends(self) -> tuple[float, float]:
        return min(self.start, 0.0), max(self.start, 0.0)


@dataclass(frozen=True)
class CosineWarmRestarts:
    """`cycles` half cosines from `start` to `end`, each `factor` times as long as the one before, the run in all.

    Within a cycle, at share x of it: end + (start − end)·(1 + cos πx)/2, moving at every step.
    CosineWarmRestarts(1e-4, 1e-6, cycles=5) over 310 epochs restarts after 10, 30, 70 and 150 of them.
    Raises InputError for fewer than one cycle, a factor below 1, or ends that are not finite.
    Source: Loshchilov & Hutter 2017, equation 5, with T_0 and T_mult.
    """

    start: float
    end: float = 0.0
    cycles: int = 3
    factor: float = 2.0

    def __post_init__(self) -> None:
        _require_finite_ends(self)
        check_range("cycles", self.cycles, low=1)
        check_range("factor", self.factor, low=1)
        if is_number(self.cycles) and self.cycles != int(self.cycles):
            raise InputError(f"cycles is {self.cycles}; allowed is a whole number, such as integer(1, 5)")

    def at(self, progress: Progress) -> float:
        lengths = [self.factor**cycle for cycle in range(self.cycles)]
        ends = list(accumulate(lengths))
        done = progress.fraction * ends[-1]
        # with a margin: rounding must not put off a restart that falls on the first step of an epoch
        cycle = sum(done >= end - 1e-9 for end in ends[:-1])
        x = 1 - (ends[cycle] - done) / lengths[cycle]
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * x)) / 2

    def ends(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


def _require_finite_ends(schedule: Any) -> None:
    # here and not where a setting's range is checked: min and max may hide one that is not a number
    check_range("start", schedule.start)
    check_range("end", schedule.end)


def value_at(value: Number, progress: Progress) -> float:
    """A number as it is, a schedule's value at `progress`."""
    return float(value) if isinstance(value, int | float) else value.at(progress)


def check_range(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Check that a number, or all of a schedule, is finite and within low ≤ x ≤ high, above < x < below.

    What contains a domain passes: the engine resolves it at its ends before a study starts, and asks again then.
    Raises InputError naming the setting, its value and what is allowed.
    """
    if is_unresolved(value):
        return
    if not is_number(value) and not hasattr(value, "ends"):
        raise InputError(f"{name} is {value!r}; allowed are a number, a schedule, or a domain of numbers")
    limits = ((low, "≥"), (above, ">"), (high, "≤"), (below, "<"))
    allowed = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if math.isfinite(limit))
    for end in (float(value),) if is_number(value) else value.ends():
        if not (math.isfinite(end) and low <= end <= high and above < end < below):
            raise InputError(f"{name} is {end:g}; allowed is a finite number {allowed}".rstrip())


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_unresolved(value: Any) -> bool:
    """Whether `value` is or contains a domain, so that it cannot be checked or used before it is resolved."""
    return next(find_domains(value), None) is not None


def schedule_values(setting: Any, progress: Progress, path: str = "") -> Mapping[str, float]:
    """Every schedule within a (resolved) dataclass, by dotted name, with its value at `progress`."""
    if hasattr(setting, "at"):
        return {path: setting.at(progress)}
    values: dict[str, float] = {}
    for field in fields(setting) if is_dataclass(setting) and not isinstance(setting, type) else ():
        values |= schedule_values(
            getattr(setting, field.name), progress, f"{path}.{field.name}" if path else field.name
        )
    return values

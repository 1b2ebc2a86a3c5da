"""Schedules: numbers that change over a training run, as pure functions of its progress.

A schedule's own settings may be domains: `Staircase(0.0, uniform(0.1, 0.6), stages=integer(2, 8))` is a search space.
Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import accumulate
from typing import Any, ClassVar

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.training.settings import FloatOrSchedule, Progress, Schedule, check_range, is_number, value_at

SHAPES = ("linear", "cosine", "step")


class _BetweenEnds:
    """A schedule whose values lie between `start` and `end`."""

    start: float
    end: float

    def __post_init__(self) -> None:
        # min and max in the bounds may hide an end that is NaN
        check_range("start", self.start)
        check_range("end", self.end)

    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Staircase(_BetweenEnds):
    """n = `stages` equal plateaus from `start` to `end`: value(i) = start + (end − start)·f(i/(n − 1)), i = 0 … n − 1.

    f(x) is x for "linear" and (1 − cos πx)/2 for "cosine"; for "step" it is 0 where x < 1/2 and 1 elsewhere, so a
    middle stage takes the value `end`. A single stage takes `end`, too. A run of fewer than n epochs has one plateau an
    epoch, so that it reaches both ends as well.
    Staircase(0, 0.4, stages=4) is 0, 13.3, 26.7, 40 %: logits pruning as published (P1).
    Raises InputError for an unknown shape, fewer than one stage, or ends that are not finite.
    """

    start: float
    end: float
    stages: int
    shape: str = "linear"

    constant_within_epochs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("stages", self.stages, low=1)
        if is_number(self.stages) and self.stages != int(self.stages):
            raise InputError(f"stages is {self.stages}; allowed is a whole number, such as integer(1, 8)")
        if not is_unresolved(self.shape) and self.shape not in SHAPES:
            raise InputError(f"shape {self.shape!r} of a schedule: allowed are {', '.join(SHAPES)}")

    def value_at(self, progress: Progress) -> float:
        stages = min(self.stages, progress.epochs)
        stage = int(progress.epoch * stages / progress.epochs)
        x = stage / (stages - 1) if stages > 1 else 1.0
        if self.shape == "step":
            x = float(x >= 0.5)
        elif self.shape == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        return self.start + (self.end - self.start) * x


@dataclass(frozen=True, init=False)
class Values:
    """The given values, one after the other, each for an equal share of the run: Values(0.0, 0.1, 0.2, 0.4).

    A run of fewer epochs than values takes one value an epoch, spread from the first to the last; a run of one epoch
    takes the last one. Any of the values may be a domain.
    Raises InputError for no value, or one that is not finite.
    """

    values: tuple[float, ...]

    constant_within_epochs: ClassVar[bool] = True

    def __init__(self, *numbers: float, values: tuple[float, ...] = ()) -> None:
        object.__setattr__(self, "values", tuple(numbers or values))
        if not self.values:
            raise InputError("Values() has no value; write at least one, Values(0.0, 0.1, 0.2, 0.4)")
        for value in self.values:
            check_range("a value of a schedule", value)

    def value_at(self, progress: Progress) -> float:
        plateaus = min(len(self.values), progress.epochs)
        plateau = int(progress.epoch * plateaus / progress.epochs)
        last = len(self.values) - 1
        return self.values[round(plateau * last / (plateaus - 1)) if plateaus > 1 else last]

    def bounds(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class MultiStep:
    """start·factor^m, m the number of `shares` of the run that are complete: torch's MultiStepLR, relative to the run.

    The default shares are epochs 150, 180 and 210 of 240, the field's CIFAR-100 recipe.
    Raises InputError for a factor outside [0, 1] or a share outside (0, 1).
    """

    start: float
    factor: float = 0.1
    shares: tuple[float, ...] = (5 / 8, 6 / 8, 7 / 8)

    constant_within_epochs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("factor", self.factor, low=0, high=1)
        if not is_unresolved(self.shares) and not all(0 < share < 1 for share in self.shares):
            raise InputError(f"shares is {self.shares}; allowed are shares of the run between 0 and 1")

    def value_at(self, progress: Progress) -> float:
        return self.start * self.factor ** sum(progress.epoch >= share * progress.epochs for share in self.shares)

    def bounds(self) -> tuple[float, float]:
        return self.start * self.factor ** len(self.shares), self.start


@dataclass(frozen=True)
class Cosine(_BetweenEnds):
    """end + (start − end)·(1 + cos π·fraction)/2: half a cosine from `start` to `end`, a new value at every step.

    Raises InputError for ends that are not finite.
    """

    start: float
    end: float = 0.0

    def value_at(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress.fraction)) / 2


@dataclass(frozen=True)
class Polynomial:
    """start·(1 − fraction)^power: from `start` to 0, a new value at every step.

    Raises InputError for a power that is not above 0.
    Source: Chen et al. 2018 (DeepLab), section 4.1, the usual schedule of segmentation, with power 0.9.
    """

    start: float
    power: float = 0.9

    def __post_init__(self) -> None:
        check_range("power", self.power, above=0)

    def value_at(self, progress: Progress) -> float:
        return float(self.start * (1 - progress.fraction) ** self.power)

    def bounds(self) -> tuple[float, float]:
        return min(self.start, 0.0), max(self.start, 0.0)


@dataclass(frozen=True)
class CosineWarmRestarts(_BetweenEnds):
    """`cycles` half cosines that fill the run, each `factor` times as long as the previous one.

    At share x of a cycle the value is end + (start − end)·(1 + cos πx)/2, a new one at every step.
    CosineWarmRestarts(1e-4, 1e-6, cycles=5) over 310 epochs restarts after epochs 10, 30, 70 and 150.
    Raises InputError for fewer than one cycle, a factor below 1, or ends that are not finite.
    Source: Loshchilov & Hutter 2017, equation 5, with T_0 and T_mult.
    """

    start: float
    end: float = 0.0
    cycles: int = 3
    factor: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("cycles", self.cycles, low=1)
        check_range("factor", self.factor, low=1)
        if is_number(self.cycles) and self.cycles != int(self.cycles):
            raise InputError(f"cycles is {self.cycles}; allowed is a whole number, such as integer(1, 5)")

    def value_at(self, progress: Progress) -> float:
        lengths = [self.factor**cycle for cycle in range(self.cycles)]
        ends = list(accumulate(lengths))
        position = progress.fraction * ends[-1]
        # the margin keeps rounding from delaying a restart that falls on the first step of an epoch
        cycle = sum(position >= end - 1e-9 for end in ends[:-1])
        x = 1 - (ends[cycle] - position) / lengths[cycle]
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * x)) / 2


@dataclass(frozen=True)
class Warmup:
    """`schedule` times a factor that rises linearly from `start` to 1 over the first `share` of the run.

    Warmup(Cosine(1e-3), share=0.1) is the usual learning rate of vision transformers; a new value at every step.
    Raises InputError for a start outside [0, 1] or a share outside (0, 1].
    Source: Goyal et al. 2017, section 2.2.
    """

    schedule: FloatOrSchedule
    share: float = 0.05
    start: float = 0.01

    def __post_init__(self) -> None:
        check_range("schedule", self.schedule)
        check_range("share", self.share, above=0, high=1)
        check_range("start", self.start, low=0, high=1)

    def value_at(self, progress: Progress) -> float:
        risen = min(1.0, progress.fraction / self.share)
        return value_at(self.schedule, progress) * (self.start + (1 - self.start) * risen)

    def bounds(self) -> tuple[float, float]:
        ends = (self.schedule,) if isinstance(self.schedule, int | float) else self.schedule.bounds()
        products = [end * factor for end in ends for factor in (self.start, 1.0)]
        return min(products), max(products)


def evaluate_schedules(setting: Any, progress: Progress) -> dict[str, float]:
    """Return the value at `progress` of every schedule within a (resolved) dataclass, by dotted field name."""
    return {name: schedule.value_at(progress) for name, schedule in list_schedules(setting)}


def list_schedules(setting: Any, path: str = "") -> Iterator[tuple[str, Schedule]]:
    """Yield every schedule within a (resolved) dataclass, by dotted field name."""
    if hasattr(setting, "value_at"):
        yield path, setting
    elif is_dataclass(setting) and not isinstance(setting, type):
        for field in fields(setting):
            yield from list_schedules(getattr(setting, field.name), f"{path}.{field.name}".lstrip("."))

"""How many trials go side by side on one GPU: as many as fit, and as still bring something.

The arithmetic of --gpus-per-trial auto. What it is fed with is measured by study/cluster/gpu_profiling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

GIB = 2**30
MOST = 8
"""More than so many side by side bring little on any GPU, and a context each."""
MARGIN = 0.1
"""Of a trial's memory, kept free: what is cut out of a full memory is never as small as what was asked for."""
GAIN = 0.1
"""Doubling the trials on a GPU must bring so much more training an hour."""


@dataclass(frozen=True)
class Need:
    """What one trial takes of a GPU's memory, in bytes."""

    peak: int
    overhead: int
    """Of each process, whatever it trains."""
    there: int

    @property
    def each(self) -> int:
        return round((1 + MARGIN) * self.peak) + self.overhead

    @property
    def room(self) -> int:
        """How many fit."""
        return self.there // self.each


@dataclass(frozen=True)
class PackingResult:
    """What was measured, and what follows from it."""

    need: Need
    seconds: Mapping[int, float]
    """An epoch takes for each of so many trials side by side."""
    most: int
    """So many side by side were allowed."""
    why: str
    """Why no more."""

    @property
    def copies(self) -> int:
        """The largest number that brought enough more than the one before it."""
        enough = [more for fewer, more in pairwise(sorted(self.seconds)) if self.gain(fewer, more) >= GAIN]
        return max([1, *enough])

    @property
    def share(self) -> float:
        """Of a GPU, for each trial."""
        return 1 / self.copies

    def gain(self, fewer: int, more: int) -> float:
        """How much more is trained in an hour by `more` trials than by `fewer`, as a share."""
        return more / self.seconds[more] / (fewer / self.seconds[fewer]) - 1


def pack(need: Need, seconds_of: Callable[[int], float], processes: int) -> PackingResult:
    """Measure 1, 2, 4, … trials side by side while they fit and each doubling brings enough.

    `seconds_of` says what an epoch takes for each of so many; it raises MemoryError where they do not fit after all.
    There are CPUs for so many `processes`.
    """
    most, why = min(
        (max(1, need.room), f"there is room for {need.room}"),
        (max(1, processes), f"each needs a CPU, and there are {processes} for a GPU"),
        (MOST, f"{MOST} are enough"),
    )
    found = PackingResult(need, {1: seconds_of(1)}, most, why)
    copies = 2
    while copies <= most:
        try:
            seconds = seconds_of(copies)
        except MemoryError:
            return PackingResult(need, found.seconds, copies // 2, f"{copies} ran out of memory")
        found = PackingResult(need, {**found.seconds, copies: seconds}, most, why)
        if found.copies < copies:
            break
        copies *= 2
    return found


def lines(packing: PackingResult) -> list[str]:
    """The arithmetic for the user."""
    need, seconds, counts = packing.need, packing.seconds, sorted(packing.seconds)
    beside = f" and {need.overhead / GIB:.2f} GiB for its process" if need.overhead else ""
    told = [
        f"one trial takes {need.peak / GIB:.2f} of {need.there / GIB:.1f} GiB and {seconds[1]:.3g} s an epoch; "
        f"with {MARGIN:.0%} to spare{beside} there is room for {need.room}"
    ]
    for fewer, more in pairwise(counts):
        gain = f"{packing.gain(fewer, more):+.0%} training an hour against {fewer}".replace("-", "−")
        told.append(f"{more} side by side: {seconds[more]:.3g} s each, {gain}")
    if packing.copies == counts[-1] and 2 * counts[-1] > packing.most:
        told.append(f"more are not tried: {packing.why}")
    return [*told, f"--gpus-per-trial {packing.share:g}"]

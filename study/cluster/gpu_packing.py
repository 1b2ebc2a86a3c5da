"""Number of trials per GPU: as many as fit, as long as each doubling still trains noticeably more per hour.

The arithmetic of --gpus-per-worker auto; study/cluster/gpu_profiling.py measures what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

GIB = 2**30
MAX_TRIALS_PER_GPU = 8
"""Beyond this number throughput hardly grows on any GPU, and each process costs a CUDA context."""
MEMORY_MARGIN = 0.1
"""Share of a trial's memory that is kept free: a fragmented memory never has as large a block as is left in sum."""
MIN_GAIN = 0.1
"""Least gain in training per hour for which the number of trials on a GPU is doubled."""


@dataclass(frozen=True)
class MemoryNeed:
    """GPU memory of one trial, in bytes."""

    peak_bytes: int
    overhead_bytes: int
    """Taken by each process, whatever it trains."""
    device_bytes: int

    @property
    def process_bytes(self) -> int:
        return round((1 + MEMORY_MARGIN) * self.peak_bytes) + self.overhead_bytes

    @property
    def capacity(self) -> int:
        """Number of trials that fit."""
        return self.device_bytes // self.process_bytes


@dataclass(frozen=True)
class PackingResult:
    """Measured epoch times by number of concurrent trials, and the number that follows from them."""

    need: MemoryNeed
    epoch_seconds: Mapping[int, float]
    """Seconds that an epoch takes each trial, by the number of concurrent trials."""
    max_trials: int
    limit: str
    """Why no more than `max_trials` are tried."""

    @property
    def trials_per_gpu(self) -> int:
        """The largest number with a sufficient gain over the one before it."""
        counts = sorted(self.epoch_seconds)
        return max([1, *(more for fewer, more in pairwise(counts) if self.gain(fewer, more) >= MIN_GAIN)])

    @property
    def share(self) -> float:
        """Share of a GPU for each trial."""
        return 1 / self.trials_per_gpu

    def gain(self, fewer: int, more: int) -> float:
        """Return the relative gain in training per hour of `more` trials over `fewer`."""
        return more / self.epoch_seconds[more] / (fewer / self.epoch_seconds[fewer]) - 1


def find_packing(need: MemoryNeed, time_epoch: Callable[[int], float], processes: int) -> PackingResult:
    """Measure 1, 2, 4, … concurrent trials while they fit and each doubling gains enough.

    `time_epoch` returns the seconds an epoch takes that number of concurrent trials, and raises MemoryError if they do
    not fit after all. `processes` is the number of CPUs for one GPU.
    """
    max_trials, limit = min(
        (max(1, need.capacity), f"there is room for {need.capacity}"),
        (max(1, processes), f"each needs a CPU, and there are {processes} for a GPU"),
        (MAX_TRIALS_PER_GPU, f"{MAX_TRIALS_PER_GPU} are enough"),
    )
    result = PackingResult(need, {1: time_epoch(1)}, max_trials, limit)
    count = 2
    while count <= max_trials:
        try:
            seconds = time_epoch(count)
        except MemoryError:
            return PackingResult(need, result.epoch_seconds, count // 2, f"{count} ran out of memory")
        result = PackingResult(need, {**result.epoch_seconds, count: seconds}, max_trials, limit)
        if result.trials_per_gpu < count:
            break
        count *= 2
    return result


def packing_lines(result: PackingResult) -> list[str]:
    """Return the arithmetic as text, a line for each step."""
    need, seconds, counts = result.need, result.epoch_seconds, sorted(result.epoch_seconds)
    overhead = f" and {need.overhead_bytes / GIB:.2f} GiB for its process" if need.overhead_bytes else ""
    lines = [
        f"one trial takes {need.peak_bytes / GIB:.2f} of {need.device_bytes / GIB:.1f} GiB and {seconds[1]:.3g} s an "
        f"epoch; with {MEMORY_MARGIN:.0%} to spare{overhead} there is room for {need.capacity}"
    ]
    for fewer, more in pairwise(counts):
        gain = f"{result.gain(fewer, more):+.0%} training an hour against {fewer}".replace("-", "−")
        lines.append(f"{more} side by side: {seconds[more]:.3g} s each, {gain}")
    if result.trials_per_gpu == counts[-1] and 2 * counts[-1] > result.max_trials:
        lines.append(f"more are not tried: {result.limit}")
    return [*lines, f"--gpus-per-worker {result.share:g}"]

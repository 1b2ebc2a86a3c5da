"""Cost of running a net: parameters, multiply-accumulates, and seconds on one CPU thread.

None of these depends on the training. GPUs are left out: their times mean little at a batch of one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainables.task import count_parameters

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

WARM_UP, MAX_RUNS, MAX_SECONDS = 5, 100, 5.0
"""Bounds of one latency: untimed passes, then timed passes, at least `WARM_UP` of them even beyond the seconds."""
BRIEF_SECONDS, LONG_SECONDS = 1.0, 10.0
"""Time for all passes of a net that is one of many; the longer one for a net with few passes within the shorter."""


@dataclass(frozen=True)
class Latency:
    """Seconds for a pass of one image, on one thread of this machine's CPU."""

    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    runs: int


def measure_cost(task: DistillationTask[Any], net: nn.Module) -> dict[str, Any]:
    """Measure a pass of one validation image; returns the fields of study.json, see docs/records.md."""
    examples, first = task.examples("val", "cpu"), torch.zeros(1, dtype=torch.int64)
    batch = examples.batch(first, first)
    net = net.to(memory_format=torch.channels_last).eval()
    with torch.no_grad(), single_thread():  # not inference_mode, in which spectral norms fail
        macs = count_macs(lambda: task.outputs(net, batch))  # imports what counts, in seconds
        started = time.perf_counter()
        task.outputs(net, batch)
        first_seconds = time.perf_counter() - started
        latency = measure_latency_briefly(lambda: task.outputs(net, batch), first_seconds)
    return {
        "parameters": count_parameters(net),
        "macs": macs,
        "input": list(batch.inputs.shape[1:]),
        "latency_seconds": latency.median_seconds,
        "latency_range_seconds": [latency.fastest_seconds, latency.slowest_seconds],
        "latency_runs": latency.runs,
    }


def count_macs(run: Callable[[], Any]) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in `run`."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, where it is installed

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def measure_latency(run: Callable[[], Any], seconds: float = MAX_SECONDS, warm_up: int = WARM_UP) -> Latency:
    """Time up to `MAX_RUNS` passes of `run` within `seconds`, but at least `warm_up`, after `warm_up` untimed ones."""
    for _ in range(warm_up):
        run()
    passes: list[float] = []
    while len(passes) < max(1, warm_up) or (len(passes) < MAX_RUNS and sum(passes) < seconds):
        started = time.perf_counter()
        run()
        passes.append(time.perf_counter() - started)
    return Latency(statistics.median(passes), min(passes), max(passes), len(passes))


def measure_latency_briefly(run: Callable[[], Any], first_seconds: float) -> Latency:
    """Time `run` for about one second, or ten if passes are slow; beyond that, take the time of the first pass."""
    left = (BRIEF_SECONDS if 4 * first_seconds < BRIEF_SECONDS else LONG_SECONDS) - 2 * first_seconds
    if left > 0:
        return measure_latency(run, left, warm_up=0)
    return Latency(first_seconds, first_seconds, first_seconds, 1)


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit torch to one CPU thread within the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""What a net takes to run: parameters, multiply-accumulates, and seconds on one CPU thread.

None of it depends on how the net was trained. Left out: GPUs, whose times say little at a batch of one.
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
from torch.utils.flop_counter import FlopCounterMode

from trainables.task import count_parameters

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

WARM_UP, RUNS, SECONDS = 5, 100, 5.0
"""Of a latency: untimed passes, then timed ones, as many as the seconds allow but `WARM_UP` at least."""
BRIEF_SECONDS, LONG_SECONDS = 1.0, 10.0
"""For a net that is one of many: all its passes together; of one with few passes in that time."""


@dataclass(frozen=True)
class Latency:
    """Seconds a pass of one image takes, on one thread of this machine's CPU."""

    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    runs: int


def cost(task: DistillationTask[Any], net: nn.Module) -> dict[str, Any]:
    """What one pass of a validation image takes, as study.json has it; see docs/records.md."""
    examples, first = task.examples("val", "cpu"), torch.zeros(1, dtype=torch.int64)
    batch = examples.batch(first, first)
    net = net.to(memory_format=torch.channels_last).eval()
    with torch.no_grad(), one_thread():  # in inference mode, spectral norms would fail
        began = time.perf_counter()
        counted = macs(lambda: task.outputs(net, batch))
        once = time.perf_counter() - began
        took = brief_latency(lambda: task.outputs(net, batch), once)
    return {
        "parameters": count_parameters(net),
        "macs": counted,
        "input": list(batch.inputs.shape[1:]),
        "latency_seconds": took.median_seconds,
        "latency_range_seconds": [took.fastest_seconds, took.slowest_seconds],
        "latency_runs": took.runs,
    }


def macs(run: Callable[[], Any]) -> int:
    """Multiply-accumulates of convolutions and matrix products in what `run` does."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def latency(run: Callable[[], Any], seconds: float = SECONDS, warm_up: int = WARM_UP) -> Latency:
    """How long `run` takes: median, fastest and slowest of up to `RUNS` passes, after `warm_up` untimed ones."""
    for _ in range(warm_up):
        run()
    passes: list[float] = []
    while len(passes) < max(1, warm_up) or (len(passes) < RUNS and sum(passes) < seconds):
        began = time.perf_counter()
        run()
        passes.append(time.perf_counter() - began)
    return Latency(statistics.median(passes), min(passes), max(passes), len(passes))


def brief_latency(run: Callable[[], Any], once: float) -> Latency:
    """The same in about a second, or ten where a pass takes long; where it takes longer yet, by the `once` it took."""
    left = (BRIEF_SECONDS if 4 * once < BRIEF_SECONDS else LONG_SECONDS) - 2 * once
    return latency(run, left, warm_up=0) if left > 0 else Latency(once, once, once, 1)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

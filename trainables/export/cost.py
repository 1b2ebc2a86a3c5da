"""Cost of running a net: parameters, multiply-accumulates, and latency on one CPU thread, in float32 and in int8.

None of these depends on the training. GPUs are left out: their times mean little at a batch of one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from study.task import INT8_LATENCY, LATENCY, MACS, PARAMETERS
from trainables.task import Batch, count_parameters

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

WARM_UP, MAX_RUNS, MAX_SECONDS = 5, 100, 5.0
"""Bounds of one latency: untimed passes, then timed passes, at least `WARM_UP` of them even beyond the seconds."""
BRIEF_SECONDS, LONG_SECONDS = 1.0, 10.0
"""Time for all passes of a net that is one of many; the longer one for a net with few passes within the shorter."""
REPEATS, MAX_REPEAT_SECONDS = 9, 2.0
"""Repeats of up to 100 passes: a hundred passes of a small net take milliseconds, in which another program may run."""


@dataclass(frozen=True)
class Latency:
    """Seconds for a pass of one image, on one thread of this machine's CPU."""

    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    runs: int


def measure_cost(task: DistillationTask[Any], net: nn.Module) -> dict[str, Any]:
    """Measure a pass of one validation image; returns the fields of study.json, see docs/records.md."""
    image, run = _make_pass(task, net)
    with torch.no_grad(), single_thread():  # not inference_mode, in which spectral norms fail
        macs = count_macs(run)  # imports what counts, in seconds
        latency = _measure_one_of_many(run)
    return {
        "parameters": count_parameters(net),
        "macs": macs,
        "input": list(image.inputs.shape[1:]),
        "latency_seconds": latency.median_seconds,
        "latency_range_seconds": [latency.fastest_seconds, latency.slowest_seconds],
        "latency_runs": latency.runs,
    }


def measure_student_costs(task: DistillationTask[Any], net: nn.Module, names: Collection[str]) -> dict[str, float]:
    """Return these costs, objectives and limits of a search: latencies are medians of passes of one image, in ms.

    Raises InputError if a package for int8 is missing.
    """
    costs: dict[str, float] = {PARAMETERS: count_parameters(net)} if PARAMETERS in names else {}
    _, run = _make_pass(task, net)
    with torch.no_grad(), single_thread():
        if MACS in names:
            costs[MACS] = count_macs(run)
        if LATENCY in names:
            costs[LATENCY] = _measure_milliseconds(run)
    if INT8_LATENCY in names:
        costs[INT8_LATENCY] = measure_int8_latency(task, net)
    return costs


def measure_int8_latency(task: DistillationTask[Any], net: nn.Module) -> float:
    """Return the latency of a net's int8 graph in ONNX Runtime, in ms; its ranges are those of training images."""
    from trainables.export import onnx  # late: most studies do without its packages
    from trainables.export.precisions import convert_graph
    from trainables.export.restore import prepare_net

    onnx.check_packages(INT8_LATENCY)
    student = prepare_net(task, net.to(memory_format=torch.contiguous_format))
    run = onnx.start_runtime(convert_graph(onnx.build_graph(student, {}), "int8", task))
    with torch.inference_mode(), single_thread():
        return _measure_milliseconds(lambda: run(student.image))


def _make_pass(task: DistillationTask[Any], net: nn.Module) -> tuple[Batch, Callable[[], Any]]:
    """Return one validation image, and the pass of it through the net."""
    first = torch.zeros(1, dtype=torch.int64)
    image = task.examples("val", "cpu").batch(first, first)
    net = net.to(memory_format=torch.channels_last).eval()
    return image, lambda: task.outputs(net, image)


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


def _measure_one_of_many(run: Callable[[], Any]) -> Latency:
    """Time `run` for about one second, or ten if passes are slow; beyond that, take the time of the first pass."""
    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    left = (BRIEF_SECONDS if 4 * first < BRIEF_SECONDS else LONG_SECONDS) - 2 * first
    return measure_latency(run, left, warm_up=0) if left > 0 else Latency(first, first, first, 1)


def _measure_milliseconds(run: Callable[[], Any]) -> float:
    """Return the median over repeats of the median of passes, after one that warms up.

    A repeat takes a second at most, ten for a slow net; the first that long is the only one.
    """
    run()
    medians: list[float] = []
    started = time.perf_counter()
    while len(medians) < REPEATS and (not medians or time.perf_counter() - started < MAX_REPEAT_SECONDS):
        medians.append(_measure_one_of_many(run).median_seconds)
    return 1000 * statistics.median(medians)


@contextmanager
def single_thread() -> Iterator[None]:
    """Limit torch to one CPU thread within the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""Costs of a student as objectives and limits of a search: parameters, MACs, latency, latency in int8."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from study.errors import InputError
from study.task import INT8_LATENCY, LATENCY, MACS, PARAMETERS
from trainables.export.cost import count_macs, measure_latency_briefly, single_thread
from trainables.task import count_parameters

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


REPEATS, MAX_SECONDS = 9, 2.0
"""Repeats of up to 100 passes: a hundred passes of a small net take milliseconds, in which another program may run."""


def measure_student_costs(task: DistillationTask[Any], net: nn.Module, names: Collection[str]) -> dict[str, float]:
    """Return these costs of a net: latencies are medians of passes of one image on one thread of this machine's CPU.

    Raises InputError if a package for int8 is missing.
    """
    costs: dict[str, float] = {PARAMETERS: count_parameters(net)} if PARAMETERS in names else {}
    examples, first = task.examples("val", "cpu"), torch.zeros(1, dtype=torch.int64)
    batch = examples.batch(first, first)
    net = net.to(memory_format=torch.channels_last).eval()
    with torch.no_grad(), single_thread():  # not inference_mode, in which spectral norms fail
        if MACS in names:
            costs[MACS] = count_macs(lambda: task.outputs(net, batch))
        if LATENCY in names:
            costs[LATENCY] = _measure_milliseconds(lambda: task.outputs(net, batch))
    if INT8_LATENCY in names:
        costs[INT8_LATENCY] = measure_int8_latency(task, net)
    return costs


def measure_int8_latency(task: DistillationTask[Any], net: nn.Module) -> float:
    """Return the latency of a net's int8 graph in ONNX Runtime, in ms; its ranges are those of training images."""
    from trainables.export import onnx as export  # late: most studies do without its packages
    from trainables.export.precisions import convert_graph
    from trainables.export.restore import prepare_net

    missing = [name for name in export.REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{INT8_LATENCY} needs {', '.join(missing)}: pip install -e '.[export]'")
    student = prepare_net(task, net.to(memory_format=torch.contiguous_format))
    graph = convert_graph(export.build_graph(student, {}), "int8", task)
    run = export.start_runtime(graph)
    with torch.inference_mode(), single_thread():
        return _measure_milliseconds(lambda: run(student.image))


def _measure_milliseconds(run: Callable[[], Any]) -> float:
    """Return the median over repeats of the median of passes, after one that warms up.

    A repeat takes a second at most, ten for a slow net; the first that long is the only one.
    """
    run()
    medians: list[float] = []
    begun = time.perf_counter()
    while len(medians) < REPEATS and (not medians or time.perf_counter() - begun < MAX_SECONDS):
        started = time.perf_counter()
        run()
        medians.append(measure_latency_briefly(run, time.perf_counter() - started).median_seconds)
    return 1000 * statistics.median(medians)

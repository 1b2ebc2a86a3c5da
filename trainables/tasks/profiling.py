"""GPU memory and time of a trial: each trial stays within its share of a GPU, and a profile measures what it needs.

Trials on one GPU share its memory, of which Ray knows nothing: without a limit, a trial that allocates too much makes
whichever trial allocates next fail. How many trials share a GPU is decided in study/cluster/gpu_packing.py.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.task import TrialProfile, reads_features
from study.trial import EpochResult, TrialContext
from trainables.distill import start_training, train_epoch
from trainables.evaluation import evaluate_examples
from trainables.losses.none import NoDistillation
from trainables.task import (
    NO_TEACHER,
    Batch,
    DistillationLoss,
    Examples,
    FrozenTeacher,
    Outputs,
    index_device,
    prefetch,
    without_pretrained,
)
from trainables.teacher.preparation import MIN_BATCH
from trainables.teacher.weights import LiveTeacher
from trainables.training.distributed import SINGLE_PROCESS
from trainables.training.nets import to_device

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

GIB = 2**30
CONTEXT_BYTES = 3 * GIB // 4
"""GPU memory of a process in addition to its tensors: CUDA's context and loaded kernels, measured at 0.4 to 0.7 GiB."""

OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""Parts of the messages of CUDA and its libraries for a full GPU, where the allocation was not torch's own."""


def limit_to_gpu_share(context: TrialContext, results: Iterator[EpochResult]) -> Iterator[EpochResult]:
    """Yield a trial's results, computed within `gpu_memory_share`."""
    with gpu_memory_share(context):
        yield from results


@contextmanager
def gpu_memory_share(context: TrialContext) -> Iterator[None]:
    """Limit torch to share · memory − CONTEXT_BYTES of the GPU, for a trial that has less than a whole one.

    Raises MemoryError, naming the share and the way out, if the code within runs out of memory, and RuntimeError if
    torch cannot use the GPU.
    """
    if context.device == "cpu" or context.gpus == 0:  # without a share, as outside Ray, the whole GPU may be used
        yield
        return
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} cannot use this node's GPU: install a torch for the driver's CUDA "
            "(pytorch.org), or give --gpus-per-worker 0"
        )
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(tensor_bytes(context.gpus, total) / total, 0)
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in OUT_OF_MEMORY)):
            raise
        raise MemoryError(_explain_out_of_memory(context.gpus, total)) from error


def tensor_bytes(share: float, total: int) -> int:
    """Return the bytes that tensors may take in a share of a GPU of `total` bytes; a whole GPU is not limited."""
    return total if share >= 1 else max(0, int(share * total) - CONTEXT_BYTES)


def _explain_out_of_memory(share: float, total: int) -> str:
    if share >= 1:
        return (
            f"out of memory: a GPU of {total / GIB:.1f} GiB is too small for this trial: take a smaller batch in the "
            "recipe, or several GPUs, --workers-per-trial 2"
        )
    return (
        f"out of memory: its share of the GPU is {share:g}, which leaves {tensor_bytes(share, total) / GIB:.1f} of "
        f"{total / GIB:.1f} GiB for tensors: give each trial more, --gpus-per-worker {min(1.0, 2 * share):g}, or let "
        "--gpus-per-worker auto measure what it needs; then --retry-failed"
    )


# -- profiling ---------------------------------------------------------------------------------------------------------


def profile_trial(task: DistillationTask[Any], context: TrialContext, batches: int) -> TrialProfile:
    """Train and evaluate on `batches` batches, twice, and time the second pass.

    Memory includes what a reused worker comes to hold: all splits, and the teacher or its stored outputs. A context
    without a student profiles the teacher's training.
    Raises MemoryError if there is not enough memory.
    """
    trains_teacher = context.student is None
    recipe, loss = (task.teacher.recipe, NoDistillation()) if trains_teacher else (context.recipe, context.loss)
    task = task.adapt_to(loss)
    with gpu_memory_share(context):
        train = task.examples(context.train_on, context.device)
        for split in ("train", "val", "test"):
            task.examples(split, context.device)  # loaded for the memory that they take
        few = FirstExamples(train, min(len(train), batches * recipe.batch_size))
        build = (lambda: _build_teacher(task)) if trains_teacher else (lambda: task.build(context.student))
        training = start_training(task, context, SINGLE_PROCESS, build, recipe, loss)
        teacher = _make_dummy_teacher(task, context, train, loss) if loss.needs_teacher else NO_TEACHER
        for epoch in range(2):
            started = time.perf_counter()
            train_epoch(training, few, teacher, epoch)
            trained = time.perf_counter()
            share = _evaluate_share(task, training.net, context.device, len(few) / len(train))
            evaluated = time.perf_counter()
        seconds = (trained - started) * len(train) / len(few) + (evaluated - trained) / share
        return TrialProfile(seconds, math.ceil(len(train) / recipe.batch_size), *_measure_memory(context.device))


@dataclass(frozen=True)
class FirstExamples:
    """The first `count` examples of a split."""

    examples: Examples
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def index_device(self) -> str | None:
        return getattr(self.examples, "index_device", None)

    def prefetch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        prefetch(self.examples, batches)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        return self.examples.batch(samples, views)


@dataclass(frozen=True)
class DummyTeacher:
    """A teacher store of the right size before the teacher is trained: its outputs are on the device, as a store's."""

    outputs: Tensor
    """(N, …) float16"""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return lambda batch: Outputs(self.outputs[batch.samples])


def _build_teacher(task: DistillationTask[Any]) -> nn.Module:
    return task.build_for_checks(without_pretrained(task.teacher.model))


def _make_dummy_teacher(
    task: DistillationTask[Any], context: TrialContext, train: Examples, loss: DistillationLoss
) -> FrozenTeacher:
    net = to_device(_build_teacher(task), context.device).eval().requires_grad_(False)
    if task.stored_output_bytes is None or reads_features(loss):
        return LiveTeacher(net, task.outputs)
    # as many at once as in the preparation that stores outputs, whose process may then be reused for training
    count = max(task.evaluation_batch(context.device), MIN_BATCH)
    first = torch.zeros(count, dtype=torch.int64, device=index_device(train, context.device))
    with torch.no_grad():
        views = task.views.draw(context.trial.seed, 0, first)  # view 0 may be larger than the views trained on
        output = task.outputs(net, train.batch(first, views)).prediction[:1].half()
    return DummyTeacher(output.repeat(len(train), *[1] * (output.dim() - 1)))


def _evaluate_share(task: DistillationTask[Any], net: nn.Module, device: str, share: float) -> float:
    """Evaluate on a share of validation, at least one full batch; on all of it where images differ in size.

    Returns the share that was evaluated.
    """
    examples, at_once = task.examples("val", device), task.evaluation_batch(device)
    count = len(examples) if at_once == 1 else min(len(examples), max(at_once, math.ceil(share * len(examples))))
    evaluate_examples(task, net, FirstExamples(examples, count), "val", device)
    return count / len(examples)


def _measure_memory(device: str) -> tuple[int, int, int]:
    """Return bytes of device memory: this process's peak, its overhead, the total; on a CPU the peak is everything."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved(), CONTEXT_BYTES, torch.cuda.get_device_properties(0).total_memory
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak, 0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

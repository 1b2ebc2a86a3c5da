"""A trial's memory and time: its share of a GPU is kept to, and a rehearsal tells what it takes.

Several trials on one GPU share its memory, of which Ray knows nothing: without a limit, one that takes too much fails
whichever of them asks next. Left out: how many trials go side by side, which is study/cluster/gpu_packing.py's.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.task import TrialProfile
from study.trial import EpochResult, TrialContext
from trainables.distill import NO_TEACHER, FrozenTeacher, start_training, train_epoch
from trainables.losses.none import NoDistillation
from trainables.task import Batch, Examples, Outputs, TrainableTask
from trainables.teacher import weights as teachers
from trainables.teacher.preparation import MIN_BATCH
from trainables.training.distributed import SINGLE_PROCESS
from trainables.training.nets import to_device

GIB = 2**30
CONTEXT_BYTES = 3 * GIB // 4
"""What a process has of a GPU beside its tensors: CUDA's context and the kernels it loads, 0.4 to 0.7 GiB."""

FULL = ("out of memory", "ALLOC_FAILED")
"""In what CUDA and its libraries say of a full GPU, where torch has not asked for the memory itself."""


def limit_to_gpu_share(job: TrialContext, rows: Iterator[EpochResult]) -> Iterator[EpochResult]:
    """The rows of a job, which may use no more of its GPU's memory than its share of the GPU."""
    with gpu_memory_share(job):
        yield from rows


@contextmanager
def gpu_memory_share(job: TrialContext) -> Iterator[None]:
    """Limit what torch takes of the GPU to share · memory − CONTEXT_BYTES, in a job that has no whole one.

    Raises MemoryError, naming the share and the way out, where what is done within runs out of memory.
    """
    if job.device == "cpu" or job.gpus == 0:  # a job that nobody gave a share, as outside Ray, has all there is
        yield
        return
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} cannot use this node's GPU: install a torch for the driver's CUDA "
            "(pytorch.org), or give --gpus-per-trial 0"
        )
    there = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed(job.gpus, there) / there, 0)
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in FULL)):
            raise
        raise MemoryError(too_large(job.gpus, there)) from error


def allowed(share: float, there: int) -> int:
    """Bytes of tensors in a share of a GPU that has `there` bytes; a whole one is not limited."""
    return there if share >= 1 else max(0, int(share * there) - CONTEXT_BYTES)


def too_large(share: float, there: int) -> str:
    """Why a trial failed that took more than `allowed`."""
    if share >= 1:
        return (
            f"out of memory: a GPU of {there / GIB:.1f} GiB is too small for this trial: take a smaller batch in the "
            "recipe, or several GPUs, --workers-per-trial 2"
        )
    return (
        f"out of memory: its share of the GPU is {share:g}, which leaves {allowed(share, there) / GIB:.1f} of "
        f"{there / GIB:.1f} GiB for tensors: give each trial more, --gpus-per-trial {min(1.0, 2 * share):g}, or let "
        "--gpus-per-trial auto measure what it needs; then --retry-failed"
    )


# -- a rehearsal -------------------------------------------------------------------------------------------------------


def rehearse(task: TrainableTask, job: TrialContext, batches: int, untrained: Callable[[], nn.Module]) -> TrialProfile:
    """Train and evaluate on so many batches, twice, and time the second; `untrained` makes the net of the teacher.

    What a reused worker comes to hold is held here, too: all splits, and the teacher or its stored outputs. A job
    without a student trains the teacher.
    Raises MemoryError if there is not enough.
    """
    of_teacher = job.student is None
    recipe, loss = (task.teacher.recipe, NoDistillation()) if of_teacher else (task.recipe, job.loss)
    build = untrained if of_teacher else lambda: task.build(job.student)
    with gpu_memory_share(job):
        train = task.examples(job.train_on, job.device)
        for split in ("train", "val", "test"):
            task.examples(split, job.device)  # nothing is asked of them: they take room
        few = First(train, min(len(train), batches * recipe.batch_size))
        training = start_training(job, SINGLE_PROCESS, build, recipe, loss)
        teacher = _stand_in(task, job, train, untrained) if loss.needs_teacher else NO_TEACHER
        for epoch in range(2):
            began = time.perf_counter()
            train_epoch(task, job, training, few, recipe, loss, teacher, epoch)
            trained = time.perf_counter()
            share = _evaluate(task, training.net, job.device, len(few) / len(train))
            evaluated = time.perf_counter()
        seconds = (trained - began) * len(train) / len(few) + (evaluated - trained) / share
        return TrialProfile(seconds, math.ceil(len(train) / recipe.batch_size), *_memory(job.device))


@dataclass(frozen=True)
class First:
    """The first few of a split's examples."""

    examples: Examples
    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        return self.examples.batch(samples, views)


@dataclass(frozen=True)
class DummyTeacher:
    """Stored outputs that nobody has computed yet: as many and as large, gathered on the device as a store's are."""

    outputs: Tensor
    """(N, …) float16"""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return lambda batch: Outputs(self.outputs[batch.samples])


def _stand_in(
    task: TrainableTask, job: TrialContext, train: Examples, untrained: Callable[[], nn.Module]
) -> FrozenTeacher:
    net = to_device(untrained(), job.device).eval().requires_grad_(False)
    if task.stored_output_bytes is None:
        return teachers.LiveTeacher(net, task.outputs)
    # so many at once are asked about where outputs are stored, by a process that then trains
    first = torch.zeros(max(task.evaluation_batch(job.device), MIN_BATCH), dtype=torch.int64, device=job.device)
    with torch.no_grad():
        views = task.views.draw(job.trial.seed, 0, first)  # the untouched image may be larger than what is trained on
        said = task.outputs(net, train.batch(first, views)).prediction[:1].half()
    return DummyTeacher(said.repeat(len(train), *[1] * (said.dim() - 1)))


@torch.no_grad()
def _evaluate(task: TrainableTask, net: nn.Module, device: str, share: float) -> float:
    """Evaluate on a share of validation, of at least one full batch; on all of it where images differ in size.

    Returns the share that it was.
    """
    net.eval()
    examples, meters, at_once = task.examples("val", device), task.meters(device, "val"), task.evaluation_batch(device)
    count = len(examples) if at_once == 1 else min(len(examples), max(at_once, math.ceil(share * len(examples))))
    for samples in torch.arange(count, device=device).split(at_once):
        batch = examples.batch(samples, torch.zeros_like(samples))
        meters.update(task.outputs(net, batch), batch)
    meters.compute()
    return count / len(examples)


def _memory(device: str) -> tuple[int, int, int]:
    """This process's peak, what it takes beside, and all there is, in bytes; on a CPU the peak is all."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved(), CONTEXT_BYTES, torch.cuda.get_device_properties(0).total_memory
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak, 0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""Training steps as a CUDA graph: captured once an epoch, then replayed as a whole.

A step of ResNet-8 is about 300 kernels of a few microseconds each; launching them one by one takes the CPU several
times as long as the GPU needs to run them. A graph launches the same kernels with the same arguments in the same order,
so results are equal bit for bit, but what Python computes in a step is frozen. Only steps that are one fixed function
of the batch within an epoch are captured (`is_capturable`), and a graph lives for one epoch: views, teacher outputs and
scheduled settings, which may change between epochs, never have to be updated in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from study.trial import TrialContext
from trainables.training.distributed import ProcessGroup
from trainables.training.recipe import Recipe
from trainables.training.schedules import list_schedules
from trainables.training.settings import Progress

if TYPE_CHECKING:
    from trainables.task import DistillationLoss
    from trainables.tasks.base import DistillationTask

MIN_STEPS = 8
"""Fewest steps per epoch for which capturing pays: it takes as long as two launched steps, and one runs before."""

Step = Callable[[Tensor, Progress], None]
"""Train on the batch of these samples (B,)."""


def is_capturable(
    task: DistillationTask[Any],
    context: TrialContext,
    group: ProcessGroup,
    recipe: Recipe,
    loss: DistillationLoss,
    steps: int,
) -> bool:
    """Return whether the steps of an epoch launch the same kernels except for the batch and the learning rate.

    Task, loss and optimizer declare it by `capturable`: they neither wait for the device nor keep numbers in Python
    that change from step to step, and batches of one size have one shape. Several workers add up their gradients in
    each step, which the graph of one process cannot contain.
    """
    declared = all(getattr(part, "capturable", False) for part in (task, loss, recipe.optimizer))
    one_gpu_worker = context.device == "cuda" and group.world_size == 1
    return one_gpu_worker and declared and is_constant_within_epochs(loss) and steps >= MIN_STEPS


def is_constant_within_epochs(loss: Any) -> bool:
    """Return whether no schedule of a loss changes from step to step."""
    return all(getattr(schedule, "constant_within_epochs", False) for _, schedule in list_schedules(loss))


class CapturedStep:
    """The steps of one epoch: the first is launched, the others of its batch size replay a capture.

    Batches of another size, such as the last one of an epoch, are launched. `previous` is the step of the epoch before:
    its stream and memory pool are reused, since memory allocated for a graph serves no other purpose.
    """

    def __init__(self, step: Step, previous: CapturedStep | None):
        self._step, self._previous = step, previous
        self._stream: torch.cuda.Stream = previous._stream if previous else torch.cuda.Stream()
        self._samples: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, samples: Tensor, progress: Progress) -> None:
        """Train on the samples (B,)."""
        if self._samples is None:
            # libraries and the optimizer set up their state in a first step, which must not be captured
            self._samples = samples.clone()
            with _on_stream(self._stream):
                self._step(samples, progress)
        elif len(samples) != len(self._samples):
            self._step(samples, progress)
        else:
            self._samples.copy_(samples)
            if self._graph is None:
                self._graph = self._capture(self._samples, progress)
            self._graph.replay()

    def _capture(self, samples: Tensor, progress: Progress) -> torch.cuda.CUDAGraph:
        """Capture a step without running it."""
        graph, last = torch.cuda.CUDAGraph(), self._previous._graph if self._previous else None
        with _on_stream(self._stream):
            # "thread_local": what other threads launch meanwhile is not captured
            graph.capture_begin(last.pool() if last else None, capture_error_mode="thread_local")
            self._step(samples, progress)
            graph.capture_end()
        self._previous = None
        return graph


@contextmanager
def _on_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Queue work on another stream, ordered with the work before and after."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)

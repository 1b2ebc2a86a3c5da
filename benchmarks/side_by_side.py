"""Concurrent trainings on one device, each in its own process, for benchmarks.gpu."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import Images
from study.trial import Trial, TrialContext
from trainables.losses.logits.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification.task import Classification
from trainables.teacher.weights import Teacher
from trainables.training.schedules import Staircase

SEED = 0
LOSS = DKD(pruning=Staircase(0.0, 0.4, stages=4))
"""P1's loss, whose training step has the most kernels."""


def make_task(images: int) -> Classification:
    """Return P1's task on random images, with a ResNet-110 as teacher."""
    return Classification(Images(images), Teacher(ResNet(110)))


def make_context(
    task: Classification, folder: Path, student: ResNet, device: str, epochs: int, name: str = "alone"
) -> TrialContext:
    """Return the context of a confirm run, trained on all images, with the test split read once, as in the paper.

    `name` must be unique among runs of equal settings: it names the checkpoint.
    """
    teacher = "stored" if task.teacher_store else "live"
    return TrialContext(
        trial=Trial("confirm", student.name, f"{teacher} {task.recipe.precision}", 0, SEED, epochs, {}, {}),
        task=task,
        student=student,
        loss=LOSS,
        recipe=task.recipe,
        checkpoint=folder / f"trial-{student.name}-{teacher}-{task.recipe.precision}-{epochs}-{name}",
        storage=folder,
        device=device,
        recorded_epochs=0,
        train_on="train+val",
        validate=False,
        test=True,
    )


def measure_together(
    images: int, folder: Path, student: ResNet, precisions: Sequence[str], device: str, epochs: int, copies: int
) -> list[float]:
    """Return images per second of `copies` concurrent trials together, for each precision, without the first epoch."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(copies, spawned, _set_barrier, (spawned.Barrier(copies),)) as pool:
        names = [f"process {number} of {copies}" for number in range(copies)]
        trials = [
            pool.submit(_train_together, images, folder, student, precisions, device, epochs, name) for name in names
        ]
        errors = [error for trial in trials if (error := trial.exception())]
    if errors:  # raise the cause, not the broken barrier that it left to the others
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    spans_by_precision = zip(*(trial.result() for trial in trials), strict=True)
    return [copies * images * (epochs - 1) / _measure_span(spans) for spans in spans_by_precision]


def _measure_span(spans: Sequence[tuple[float, float]]) -> float:
    return max(end for _, end in spans) - min(start for start, _ in spans)


_barrier: Any = None
"""The barrier at which trials wait for each other; set in each process."""


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _train_together(
    images: int, folder: Path, student: ResNet, precisions: Sequence[str], device: str, epochs: int, name: str
) -> list[tuple[float, float]]:
    """Train a trial of each precision; return start and end of its epochs after the first, which start together."""
    torch.set_num_threads(1)
    spans = []
    try:
        for precision in precisions:
            context = make_context(make_task(images).with_precision(precision), folder, student, device, epochs, name)
            rows = context.task.train(context)
            next(rows)
            _barrier.wait()
            started = time.time()
            for _ in rows:
                pass
            spans.append((started, time.time()))
    except BaseException:
        _barrier.abort()
        raise
    return spans

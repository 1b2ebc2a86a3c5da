"""Several trainings at once on one device, each in a process of its own, for benchmarks.gpu."""

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
from trainables.losses.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification import Classification
from trainables.teacher.weights import Teacher
from trainables.training.schedules import Staircase

SEED = 0
LOSS = DKD(pruning=Staircase(0.0, 0.4, stages=4))
"""P1's, whose step has the most kernels."""


def task_of(images: int) -> Classification:
    return Classification(Images(images), Teacher(ResNet(110)))


def job_of(
    task: Classification, folder: Path, student: ResNet, device: str, epochs: int, name: str = "alone"
) -> TrialContext:
    """A confirm run: trained on all images, test read once, as the paper's are. Of one name there must be one."""
    teacher = "stored" if task.teacher_store else "live"
    return TrialContext(
        trial=Trial("confirm", student.name, f"{teacher} {task.recipe.precision}", 0, SEED, epochs, {}, {}),
        task=task,
        student=student,
        loss=LOSS,
        checkpoint=folder / f"trial-{student.name}-{teacher}-{task.recipe.precision}-{epochs}-{name}",
        storage=folder,
        device=device,
        recorded_epochs=0,
        train_on="train+val",
        validate=False,
        test=True,
    )


def by_processes(
    images: int, folder: Path, student: ResNet, precisions: Sequence[str], device: str, epochs: int, copies: int
) -> list[float]:
    """Images a second, for each precision, of this many trials together; the first epoch does not count."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(copies, spawned, _meet, (spawned.Barrier(copies),)) as pool:
        names = [f"process {number} of {copies}" for number in range(copies)]
        trials = [pool.submit(_train, images, folder, student, precisions, device, epochs, name) for name in names]
        errors = [error for trial in trials if (error := trial.exception())]
    if errors:  # first the one that kept the others waiting
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    of_precision = zip(*(trial.result() for trial in trials), strict=True)
    return [copies * images * (epochs - 1) / _seconds(spans) for spans in of_precision]


def _seconds(spans: Sequence[tuple[float, float]]) -> float:
    return max(end for _, end in spans) - min(start for start, _ in spans)


_ready: Any = None
"""Where trials wait for each other; in each process."""


def _meet(ready: Any) -> None:
    global _ready
    _ready = ready


def _train(
    images: int, folder: Path, student: ResNet, precisions: Sequence[str], device: str, epochs: int, name: str
) -> list[tuple[float, float]]:
    """Train a trial of each precision, epochs after the first together with the others; when these began and ended."""
    torch.set_num_threads(1)
    spans = []
    try:
        for precision in precisions:
            job = job_of(task_of(images).with_precision(precision), folder, student, device, epochs, name)
            rows = job.task.train(job)
            next(rows)
            _ready.wait()
            started = time.time()
            for _ in rows:
                pass
            spans.append((started, time.time()))
    except BaseException:
        _ready.abort()
        raise
    return spans

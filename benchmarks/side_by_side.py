"""Several trainings at once on one device, for benchmarks.gpu: in processes of their own, or as streams of one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import Images
from study.trial import Trial, TrialContext
from trainables.losses.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification import Classification
from trainables.teacher.weights import Teacher

SEED = 0


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
        loss=DKD(),
        checkpoint=folder / f"trial-{student.name}-{teacher}-{task.recipe.precision}-{epochs}-{name}",
        storage=folder,
        device=device,
        recorded_epochs=0,
        train_on="train+val",
        validate=False,
        test=True,
    )


def by_processes(images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: int) -> float:
    """Images a second of so many trials together, each in a process of its own."""
    spawned = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(copies, spawned, _meet, (spawned.Barrier(copies),))
    return _together(pool, images, folder, student, device, epochs, copies, "process")


def by_streams(images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: int) -> float:
    """Images a second of so many trials together, threads of one process, each launching into a stream of its own."""
    pool = ThreadPoolExecutor(copies, initializer=_meet, initargs=(threading.Barrier(copies),))
    return _together(pool, images, folder, student, device, epochs, copies, "stream")


def _together(
    pool: Executor, images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: int, name: str
) -> float:
    names = [f"{name} {number} of {copies}" for number in range(copies)]
    with pool:  # a process that dies ends the others, too
        trials = [pool.submit(_train, images, folder, student, device, epochs, name) for name in names]
        errors = [error for trial in trials if (error := trial.exception())]
    if errors:  # first the one that kept the others waiting
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    spans = [trial.result() for trial in trials]
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return len(spans) * images * (epochs - 1) / seconds


_ready: Any = None
"""Where trials wait for each other; in each process."""


def _meet(ready: Any) -> None:
    global _ready
    _ready = ready


def _train(images: int, folder: Path, student: ResNet, device: str, epochs: int, name: str) -> tuple[float, float]:
    """One trial; its epochs after the first start with those of the others. When these began and ended."""
    torch.set_num_threads(1)
    try:
        stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            job = job_of(task_of(images), folder, student, device, epochs, name)
            rows = job.task.train(job)
            next(rows)
            _ready.wait()
            started = time.time()
            for _ in rows:
                pass
            return started, time.time()
    except BaseException:
        _ready.abort()
        raise

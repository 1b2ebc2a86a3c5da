"""Several trainings at once on one device, for benchmarks.gpu: in processes of their own, or as streams of one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import Images
from study.trial import Job, Trial
from trainables.cifar import Classification
from trainables.losses.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.teachers import Teacher

SEED = 0


def task_of(images: int) -> Classification:
    return Classification(Images(images), Teacher(ResNet(110)))


def job_of(task: Classification, folder: Path, student: ResNet, device: str, epochs: int, number: int = 0) -> Job:
    """A confirm run: trained on all images, test read once, as the paper's are."""
    teacher = "stored" if task.teacher_store else "live"
    return Job(
        trial=Trial("confirm", student.name, f"{teacher} {task.recipe.precision}", number, SEED, epochs, {}, {}),
        task=task,
        student=student,
        loss=DKD(),
        checkpoint=folder / f"trial-{student.name}-{teacher}-{task.recipe.precision}-{epochs}-{number}",
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
    ready, told = spawned.Barrier(copies), spawned.SimpleQueue()
    arguments = images, str(folder), student, device, epochs
    processes = [spawned.Process(target=_train, args=(*arguments, 100 + n, ready, told)) for n in range(copies)]
    for process in processes:
        process.start()
    spans = [told.get() for _ in processes]
    for process in processes:
        process.join()
    return _together(images, epochs, spans)


def by_streams(images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: int) -> float:
    """Images a second of so many trials together, threads of one process, each launching into a stream of its own."""
    ready = threading.Barrier(copies)
    told: Any = _Told()
    arguments = images, str(folder), student, device, epochs
    threads = [threading.Thread(target=_train, args=(*arguments, 200 + n, ready, told)) for n in range(copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _together(images, epochs, told)


class _Told(list[tuple[float, float]]):
    put = list.append


def _train(
    images: int, folder: str, student: ResNet, device: str, epochs: int, number: int, ready: Any, told: Any
) -> None:
    """One trial; its epochs after the first start with those of the others."""
    torch.set_num_threads(1)
    try:
        stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            job = job_of(task_of(images), Path(folder), student, device, epochs, number)
            rows = job.task.train(job)
            next(rows)
            ready.wait()
            started = time.time()
            for _ in rows:
                pass
            told.put((started, time.time()))
    except BaseException:
        ready.abort()
        told.put((0.0, 0.0))
        raise


def _together(images: int, epochs: int, spans: list[tuple[float, float]]) -> float:
    if (0.0, 0.0) in spans:
        raise SystemExit("a trial beside others failed: see above")
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return len(spans) * images * (epochs - 1) / seconds

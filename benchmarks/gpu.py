"""What a GPU makes of the training loop: python -m benchmarks.gpu [--quick]. Needs no Ray.

Three parts, in images trained on a second. `alone`: one trial by student and precision, its steps replayed as a CUDA
graph and launched kernel by kernel, and one with a live teacher. `together`: several trials at once, each in a process
of its own; under CUDA's MPS where its daemon runs (CUDA_MPS_PIPE_DIRECTORY is set), else in turns. `trial`: how long
the paper's whole trial takes, with its checkpoints and a test on 100 images.

Speed depends neither on what images show nor on what nets know: images are random bytes in CIFAR-100's shape, stored
logits are random, and the live teacher is an untrained ResNet-110. The first epoch of every training warms up and does
not count. On the processor it uses one thread: then it shows that it works, no more.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.reporting import machine, result, spread, table
from benchmarks.side_by_side import SEED, by_processes, job_of, task_of
from benchmarks.untrained import keep_untrained_teacher
from study.task import Plan
from study.trial import TrialContext
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification import Classification
from trainables.teacher import output_store as store
from trainables.teacher import preparation as preparing
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.training import cuda_graph
from trainables.training.recipe import PRECISIONS

GOAL = 80, 50_000, 12.0
"""Epochs, images and seconds of a ResNet-8 trial that an H200 is to reach."""
PARTS = ("alone", "together", "trial")


def store_anything(task: Classification, folder: Path, epochs: int) -> None:
    """Fill the store with random logits for every view that a trial of so many epochs draws."""
    drawn = preparing.mark_drawn(task, Plan(((SEED, "train+val"),), epochs))
    assert task.stored_output_bytes is not None
    generator, where = torch.Generator().manual_seed(SEED), sources.store_folder(task, folder)
    teacher = teachers.weights_digest(folder, task.teacher_key)
    for block in store.split_into_blocks(drawn, task.stored_output_bytes):
        samples, views = drawn[block.start : block.stop].nonzero(as_tuple=True)
        codes = (samples + block.start) * task.views.count + views
        outputs = torch.randn(len(codes), task.stored_output_bytes // 2, generator=generator)
        store.write_shard(where, codes, outputs, teacher)


# -- one trial ---------------------------------------------------------------------------------------------------------


@contextmanager
def launched() -> Iterator[None]:
    """Steps are not recorded as a graph."""
    before, cuda_graph.MIN_STEPS = cuda_graph.MIN_STEPS, 2**63
    yield
    cuda_graph.MIN_STEPS = before


def images_per_second(job: TrialContext, images: int) -> list[float]:
    """In each epoch after the first: a row is there only once the device has done its work."""
    rows, speeds = job.task.train(job), []
    next(rows)
    for _ in range(1, job.trial.epochs):
        started = time.perf_counter()
        next(rows)
        speeds.append(images / (time.perf_counter() - started))
    return speeds


def report_alone(
    task: Classification, images: int, folder: Path, students: list[ResNet], device: str, epochs: int
) -> list[str]:
    rows: list[list[Any]] = []
    best = "replayed" if device == "cuda" else "launched"
    for student in students:
        for precision in PRECISIONS:
            job = job_of(task.with_precision(precision), folder, student, device, epochs)
            rows.append([student.name, "stored", precision, best, images_per_second(job, images)])
            if device == "cuda":
                with launched():
                    job = job_of(task.with_precision(precision), folder, student, device, 2, "launched")
                    rows.append([student.name, "stored", precision, "launched", images_per_second(job, images)])
    job = job_of(task.with_live_teacher(), folder, students[0], device, 2)
    rows.append([students[0].name, "live", task.recipe.precision, best, images_per_second(job, images)])
    shown = [[*names, spread(speeds)] for *names, speeds in rows]
    print("\n" + table([["student", "teacher", "precision", "steps", "images/s"], *shown]))
    return [result("_".join([device, *names]), speeds, "images/s") for *names, speeds in rows]


# -- several -----------------------------------------------------------------------------------------------------------


def report_together(
    images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: list[int]
) -> list[str]:
    way = "mps" if "CUDA_MPS_PIPE_DIRECTORY" in os.environ else "turns"
    results, rows = [], [["trials at once", *(f"{precision}, images/s" for precision in PRECISIONS)]]
    for count in copies:
        speeds = by_processes(images, folder, student, PRECISIONS, device, epochs, count)
        rows.append([str(count), *(f"{speed:,.0f}" for speed in speeds)])
        for precision, speed in zip(PRECISIONS, speeds, strict=True):
            results.append(result(f"{device}_{student.name}_{precision}_{count}_{way}", [speed], "images/s"))
        print(table([rows[0], rows[-1]]), flush=True)
    print(f"\nprocesses share the device by {way}\n" + table(rows))
    return results


# -- the whole ---------------------------------------------------------------------------------------------------------


def report_trial(
    task: Classification, images: int, folder: Path, student: ResNet, device: str, epochs: int
) -> list[str]:
    """Of each precision: its seconds, and those of the goal's epochs and images if an image takes as long there."""
    results = []
    for precision in PRECISIONS:
        started, ends = time.perf_counter(), []
        job = job_of(task.with_precision(precision), folder, student, device, epochs, "whole")
        for _ in job.task.train(job):
            ends.append(time.perf_counter() - started)
        epoch = statistics.median(end - before for before, end in pairwise(ends))
        once = max(0.0, ends[-1] - epochs * epoch)  # data and the store are opened, the test split is read
        whole = once + GOAL[0] * epoch * GOAL[1] / images
        print(f"\ntrial    {epochs} epochs of {images:,} images, {student.name}, {precision}: {ends[-1]:.1f} s")
        print(f"         {once:.1f} s once and {epoch:.2f} s an epoch; {GOAL[0]} of {GOAL[1]:,} images: {whole:.1f} s")
        print(f"         goal: {GOAL[2]:.0f} s")
        results.append(result(f"{device}_{student.name}_{precision}_trial", [whole], "s"))
    return results


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works: few images, epochs and copies.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="The GPU if there is one, else the processor.")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="With commas between.")
@click.option("--images", default=50_000, show_default=True, type=click.IntRange(min=128), help="Trained on.")
@click.option("--epochs", default=80, show_default=True, type=click.IntRange(min=2), help="Of the whole trial.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Epochs that count elsewhere.")
@click.option("--copies", default="1,2,4,8", show_default=True, help="Trials at once, with commas between.")
def main(quick: bool, device: str | None, parts: str, images: int, epochs: int, rounds: int, copies: str) -> None:
    """Images per second of the training loop on this machine's GPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if quick:
        images, epochs, rounds, copies = 1024 if device == "cuda" else 256, 2, 1, "2"
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device == "cuda" else "the processor"
    print("\n".join([*machine(), f"device   {name}"]))
    students, task, results = [ResNet(8)] if quick else [ResNet(8), ResNet(20)], task_of(images), []
    with tempfile.TemporaryDirectory(prefix="kdstudy-gpu-") as temporary:
        folder = Path(temporary)
        keep_untrained_teacher(task, folder)
        store_anything(task, folder, max(epochs if "trial" in parts else 2, rounds + 1))
        if "alone" in parts:
            results += report_alone(task, images, folder, students, device, rounds + 1)
        if "together" in parts:
            counts = [int(count) for count in copies.split(",")]
            results += report_together(images, folder, students[0], device, rounds + 1, counts)
        if "trial" in parts:
            results += report_trial(task, images, folder, students[0], device, epochs)
    print("\n" + "\n".join(results))


if __name__ == "__main__":
    main()

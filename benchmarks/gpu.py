"""Speed of the training loop on a GPU: python -m benchmarks.gpu [--quick]. Needs no Ray.

Three parts, in images trained on per second. `alone`: one trial per student and precision, with its steps replayed as a
CUDA graph and launched kernel by kernel, and one with a live teacher. `together`: concurrent trials, each in its own
process, under CUDA's MPS if its daemon runs (CUDA_MPS_PIPE_DIRECTORY is set), else time-sliced. `trial`: the duration
of the paper's whole trial, with its checkpoints and a test on 100 images.

Speed depends neither on the images nor on the weights: images are random bytes in CIFAR-100's shape, stored logits are
random, and the live teacher is an untrained ResNet-110. The first epoch of every training is a warm-up and does not
count. On a CPU it uses one thread, and only shows that the benchmark works.
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

from benchmarks.reporting import describe_machine, format_result, format_spread, format_table
from benchmarks.side_by_side import SEED, make_context, make_task, measure_together
from benchmarks.untrained import save_untrained_teacher
from study.task import Plan
from study.trial import TrialContext
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification.task import Classification
from trainables.teacher import sources
from trainables.teacher.output_store import split_into_blocks, write_shard
from trainables.teacher.preparation import mark_drawn
from trainables.teacher.weights import weights_digest
from trainables.training import cuda_graph
from trainables.training.recipe import PRECISIONS

GOAL = 80, 50_000, 12.0
"""Epochs, images and seconds of a ResNet-8 trial: the target on an H200."""
PARTS = ("alone", "together", "trial")


def store_random_outputs(task: Classification, folder: Path, epochs: int) -> None:
    """Fill the store with random logits for every view that a trial of `epochs` epochs draws."""
    drawn = mark_drawn(task, Plan(((SEED, "train+val"),), epochs))
    assert task.stored_output_bytes is not None
    generator, where = torch.Generator().manual_seed(SEED), sources.store_folder(task, folder)
    teacher = weights_digest(folder, task.teacher_key)
    for block in split_into_blocks(drawn, task.stored_output_bytes):
        samples, views = drawn[block.start : block.stop].nonzero(as_tuple=True)
        codes = (samples + block.start) * task.views.count + views
        outputs = torch.randn(len(codes), task.stored_output_bytes // 2, generator=generator)
        write_shard(where, codes, outputs, teacher)


# -- one trial ---------------------------------------------------------------------------------------------------------


@contextmanager
def disable_cuda_graph() -> Iterator[None]:
    """Launch training steps kernel by kernel instead of replaying a graph."""
    before, cuda_graph.MIN_STEPS = cuda_graph.MIN_STEPS, 2**63
    yield
    cuda_graph.MIN_STEPS = before


def measure_images_per_second(context: TrialContext, images: int) -> list[float]:
    """Return the speed of each epoch after the first; the loop yields a row once the device has finished the epoch."""
    rows, speeds = context.task.train(context), []
    next(rows)
    for _ in range(1, context.trial.epochs):
        started = time.perf_counter()
        next(rows)
        speeds.append(images / (time.perf_counter() - started))
    return speeds


def report_alone(
    task: Classification, images: int, folder: Path, students: list[ResNet], device: str, epochs: int
) -> list[str]:
    """Measure one trial at a time, print a table, and return the lines for programs."""
    rows: list[list[Any]] = []
    best = "replayed" if device == "cuda" else "launched"
    for student in students:
        for precision in PRECISIONS:
            context = make_context(task.with_precision(precision), folder, student, device, epochs)
            rows.append([student.name, "stored", precision, best, measure_images_per_second(context, images)])
            if device == "cuda":
                with disable_cuda_graph():
                    context = make_context(task.with_precision(precision), folder, student, device, 2, "launched")
                    rows.append(
                        [student.name, "stored", precision, "launched", measure_images_per_second(context, images)]
                    )
    context = make_context(task.with_live_teacher(), folder, students[0], device, 2)
    rows.append([students[0].name, "live", task.recipe.precision, best, measure_images_per_second(context, images)])
    printed = [[*names, format_spread(speeds)] for *names, speeds in rows]
    print("\n" + format_table([["student", "teacher", "precision", "steps", "images/s"], *printed]))
    return [format_result("_".join([device, *names]), speeds, "images/s") for *names, speeds in rows]


# -- concurrent trials -------------------------------------------------------------------------------------------------


def report_together(
    images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: list[int]
) -> list[str]:
    """Measure concurrent trials, print a table, and return the lines for programs."""
    sharing = "mps" if "CUDA_MPS_PIPE_DIRECTORY" in os.environ else "turns"
    results, rows = [], [["trials at once", *(f"{precision}, images/s" for precision in PRECISIONS)]]
    for count in copies:
        speeds = measure_together(images, folder, student, PRECISIONS, device, epochs, count)
        rows.append([str(count), *(f"{speed:,.0f}" for speed in speeds)])
        for precision, speed in zip(PRECISIONS, speeds, strict=True):
            results.append(format_result(f"{device}_{student.name}_{precision}_{count}_{sharing}", [speed], "images/s"))
        print(format_table([rows[0], rows[-1]]), flush=True)
    print(f"\nprocesses share the device by {sharing}\n" + format_table(rows))
    return results


# -- the whole trial ---------------------------------------------------------------------------------------------------


def report_trial(
    task: Classification, images: int, folder: Path, student: ResNet, device: str, epochs: int
) -> list[str]:
    """Time a trial of each precision, print its seconds scaled to the goal's epochs and images, return RESULT lines."""
    results = []
    for precision in PRECISIONS:
        started, ends = time.perf_counter(), []
        context = make_context(task.with_precision(precision), folder, student, device, epochs, "whole")
        for _ in context.task.train(context):
            ends.append(time.perf_counter() - started)
        epoch = statistics.median(end - before for before, end in pairwise(ends))
        once = max(0.0, ends[-1] - epochs * epoch)  # opening data and store, reading the test split
        whole = once + GOAL[0] * epoch * GOAL[1] / images
        print(f"\ntrial    {epochs} epochs of {images:,} images, {student.name}, {precision}: {ends[-1]:.1f} s")
        print(f"         {once:.1f} s once and {epoch:.2f} s an epoch; {GOAL[0]} of {GOAL[1]:,} images: {whole:.1f} s")
        print(f"         goal: {GOAL[2]:.0f} s")
        results.append(format_result(f"{device}_{student.name}_{precision}_trial", [whole], "s"))
    return results


@click.command()
@click.option("--quick", is_flag=True, help="A short check: few images, epochs and copies.")
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), help="The default is the GPU if there is one, else the CPU."
)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Parts to run, separated by commas.")
@click.option("--images", default=50_000, show_default=True, type=click.IntRange(min=128), help="Training images.")
@click.option("--epochs", default=80, show_default=True, type=click.IntRange(min=2), help="Epochs of the whole trial.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Counted epochs of the other parts."
)
@click.option(
    "--copies", default="1,2,4,8", show_default=True, help="Numbers of concurrent trials, separated by commas."
)
def main(quick: bool, device: str | None, parts: str, images: int, epochs: int, rounds: int, copies: str) -> None:
    """Measure the images per second of the training loop on this machine's GPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if quick:
        images, epochs, rounds, copies = 1024 if device == "cuda" else 128, 2, 1, "2"
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print("\n".join([*describe_machine(), f"device   {name}"]))
    students, task, results = [ResNet(8)] if quick else [ResNet(8), ResNet(20)], make_task(images), []
    with tempfile.TemporaryDirectory(prefix="kdstudy-gpu-") as temporary:
        folder = Path(temporary)
        save_untrained_teacher(task, folder)
        store_random_outputs(task, folder, max(epochs if "trial" in parts else 2, rounds + 1))
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

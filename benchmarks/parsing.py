"""What the teacher's store saves in face parsing at the paper's sizes: python -m benchmarks.parsing [--quick].

One trial of the training loop with the teacher's logits stored, and one that asks the live teacher at every step, in
turns in one process with one torch thread: the same student, images, views and loss (LDT), one epoch of a few batches
each. The first epoch of both warms up and does not count. An epoch includes its checkpoint; there is no validation.

Speed depends neither on what images show nor on what nets know: both are random. The teacher is FCN on ResNet-101. The
store is filled once for all trials; over one trial of the paper's 100 epochs its construction is counted as ours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.reporting import machine, result, spread, table
from benchmarks.untrained import keep_untrained_teacher
from study.task import Plan, Preparation
from study.trial import Trial, TrialContext
from trainables.data.arrays.face_decoding import CLASSES
from trainables.data.arrays.face_parsing import Faces, FaceSet
from trainables.losses.ldt import LDT
from trainables.models.segmentation import FCNResNet
from trainables.tasks.face_parsing.task import FaceParsing
from trainables.teacher import preparation as preparing
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe, Sgd
from trainables.training.schedules import Polynomial

SEED = 0
EPOCHS = 100
"""Of the paper's trials."""
POOL = 24_183 + 2_993
"""CelebAMask-HQ's training and validation images."""
GOAL = 5.0


@dataclass(frozen=True)
class RandomFaces:
    """Noise in the shape of faces."""

    count: int
    size: int

    def load(self) -> FaceSet:
        rng = np.random.default_rng(SEED)
        images = rng.integers(0, 256, (self.count + 2, 3, self.size, self.size), dtype=np.uint8)
        labels = rng.integers(0, len(CLASSES), (self.count + 2, self.size, self.size), dtype=np.uint8)
        return FaceSet("noise", Faces(images, labels), (self.count, 1, 1), f"noise-{self.count}-{self.size}")


def task_of(count: int, size: int, batch: int, folder: Path) -> FaceParsing:
    """The paper's task on so many faces, its teacher untrained."""
    recipe = Recipe(batch, Polynomial(0.01), Sgd())
    task = FaceParsing(RandomFaces(count, size), Teacher(FCNResNet(101), recipe, EPOCHS), recipe)
    keep_untrained_teacher(task, folder, images=2)
    return task


def fill(task: FaceParsing, folder: Path, epochs: int) -> float:
    """Store the teacher's logits for every view that so many epochs draw; returns seconds per output stored."""
    steps = task.list_preparations(folder, Plan(((SEED, "train"),), epochs))
    started = time.perf_counter()
    for step in steps:
        list(preparing.run_preparation(task, _job(task, folder, step.name, None, step)))
    views = {
        (sample, view)
        for epoch in range(epochs)
        for sample, view in enumerate(task.views.draw(SEED, epoch, torch.arange(len(task.positions("train")))).tolist())
    }
    return (time.perf_counter() - started) / len(views)


def epochs_of(task: FaceParsing, folder: Path, student: FCNResNet, epochs: int) -> Iterator[float]:
    """Seconds of each epoch of a trial."""
    rows = task.train(_job(task, folder, "stored" if task.teacher_store else "live", student, None, epochs))
    while True:
        started = time.perf_counter()
        if next(rows, None) is None:
            return
        yield time.perf_counter() - started


def _job(
    task: FaceParsing, folder: Path, arm: str, student: FCNResNet | None, step: Preparation | None, epochs: int = 1
) -> TrialContext:
    config: Any = step.config if step else {}
    name = student.name if student else ""
    return TrialContext(
        trial=Trial("prepare" if step else "search", name, arm, 0, SEED, epochs, {}, config),
        task=task,
        student=student,
        loss=LDT(),
        checkpoint=folder / "checkpoints" / arm.replace("/", "-"),
        storage=folder,
        device="cpu",
        recorded_epochs=0,
        train_on="train",
        validate=False,
        test=False,
    )


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works, at a size that shows no ratio.")
@click.option("--depth", default=18, show_default=True, type=click.Choice([18, 34]), help="Of the student's ResNet.")
@click.option("--size", default=512, show_default=True, type=click.IntRange(min=32), help="Pixels each way.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Epochs that count.")
@click.option("--batches", default=1, show_default=True, type=click.IntRange(min=1), help="Of 5 faces, in an epoch.")
def main(quick: bool, depth: int, size: int, rounds: int, batches: int) -> None:
    """A trial with the teacher's logits stored against one with a live teacher."""
    if quick:
        size, rounds, batches = 96, 1, 1
    torch.set_num_threads(1)
    batch, student = 5, FCNResNet(depth)
    print("\n".join([*machine(), f"faces    {size} × {size}, {batches} batches of {batch} an epoch, rounds: {rounds}"]))
    with tempfile.TemporaryDirectory(prefix="kdstudy-parsing-") as temporary:
        folder = Path(temporary)
        task = task_of(batch * batches, size, batch, folder)
        stored_seconds = fill(task, folder, rounds + 1)
        trials = [epochs_of(one, folder, student, rounds + 1) for one in (task, task.with_live_teacher())]
        stored, live = zip(*list(zip(*trials, strict=True))[1:], strict=True)
    report(task, student.name, list(stored), list(live), stored_seconds, batch * batches)


def report(task: FaceParsing, name: str, stored: list[float], live: list[float], output: float, faces: int) -> None:
    """Print seconds per face and ratios: a table, then lines to be read by programs."""
    ratios = [slow / fast for slow, fast in zip(live, stored, strict=True)]
    whole = [EPOCHS * slow / (EPOCHS * fast + 2 * faces * output) for slow, fast in zip(live, stored, strict=True)]
    assert task.stored_output_bytes is not None
    heads = ["student", "live teacher, s a face", "stored, s a face", "ratio", f"{EPOCHS} epochs, filled for one trial"]
    seconds = [spread([epoch / faces for epoch in epochs], 2) for epochs in (live, stored)]
    rows = [heads, [name, *seconds, spread(ratios, 1), spread(whole, 1)]]
    print()
    print(table(rows))
    gigabytes = 2 * POOL * task.stored_output_bytes / 1e9
    print(f"\nstore    {output:.2f} s an output; CelebAMask-HQ, both views: {gigabytes:.1f} GB")
    print(f"goal     {GOAL:.0f} times, for ResNet-18 at 512 × 512\n")
    results = [result(f"{name}_stored_speedup", ratios, "x"), result(f"{name}_trial_speedup", whole, "x")]
    print("\n".join([*results, result("store_size", [gigabytes], "GB")]))


if __name__ == "__main__":
    main()

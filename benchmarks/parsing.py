"""Speed gained by stored teacher outputs in face parsing at the paper's sizes: python -m benchmarks.parsing [--quick].

One trial of the training loop with stored teacher logits and one that runs the live teacher at every step alternate in
one process with one torch thread: the same student, images, views and loss (LDT), a few batches per epoch. The first
epoch of both is a warm-up and does not count. An epoch includes its checkpoint but no validation.

Speed depends neither on the images nor on the weights: both are random. The teacher is FCN on ResNet-101. The store is
filled once for all trials; the ratio over one trial of the paper's 100 epochs counts filling it as ours.
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

from benchmarks.reporting import describe_machine, format_result, format_spread, format_table
from benchmarks.untrained import save_untrained_teacher
from study.task import Plan, Preparation
from study.trial import Trial, TrialContext
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.arrays.label_maps import LabelMaps, LabelMapSet
from trainables.losses.pixels.ldt import LDT
from trainables.models.segmentation import FCNResNet
from trainables.tasks.segmentation.face_parsing import FaceParsing
from trainables.teacher.preparation import run_preparation
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe, Sgd
from trainables.training.schedules import Polynomial

SEED = 0
EPOCHS = 100
"""Epochs of the paper's trials."""
POOL = 24_183 + 2_993
"""Training and validation images of CelebAMask-HQ."""
GOAL = 7.0
"""Live seconds over stored seconds, for ResNet-18 at 512 × 512."""


@dataclass(frozen=True)
class RandomFaces:
    """Random bytes in the shape of faces and their labels."""

    count: int
    size: int

    def load(self) -> LabelMapSet:
        rng = np.random.default_rng(SEED)
        images = rng.integers(0, 256, (self.count + 2, 3, self.size, self.size), dtype=np.uint8)
        labels = rng.integers(0, len(CLASSES), (self.count + 2, self.size, self.size), dtype=np.uint8)
        return LabelMapSet("noise", LabelMaps(images, labels), (self.count, 1, 1), f"noise-{self.count}-{self.size}")


def make_task(count: int, size: int, batch: int, folder: Path) -> FaceParsing:
    """Return the paper's task on `count` faces, with an untrained teacher."""
    recipe = Recipe(batch, Polynomial(0.01), Sgd())
    task = FaceParsing(RandomFaces(count, size), Teacher(FCNResNet(101), recipe, EPOCHS), recipe)
    save_untrained_teacher(task, folder, images=2)
    return task


def fill_store(task: FaceParsing, folder: Path, epochs: int) -> float:
    """Store the teacher's logits for every view that `epochs` epochs draw; return seconds per stored output."""
    steps = task.list_preparations(folder, Plan(((SEED, "train"),), epochs))
    started = time.perf_counter()
    for step in steps:
        list(run_preparation(task, _make_context(task, folder, step.name, None, step)))
    views = {
        (sample, view)
        for epoch in range(epochs)
        for sample, view in enumerate(task.views.draw(SEED, epoch, torch.arange(len(task.positions("train")))).tolist())
    }
    return (time.perf_counter() - started) / len(views)


def time_epochs(task: FaceParsing, folder: Path, student: FCNResNet, epochs: int) -> Iterator[float]:
    """Yield the seconds of each epoch of a trial."""
    rows = task.train(_make_context(task, folder, "stored" if task.teacher_store else "live", student, None, epochs))
    while True:
        started = time.perf_counter()
        if next(rows, None) is None:
            return
        yield time.perf_counter() - started


def _make_context(
    task: FaceParsing, folder: Path, arm: str, student: FCNResNet | None, step: Preparation | None, epochs: int = 1
) -> TrialContext:
    config: Any = step.config if step else {}
    name = student.name if student else ""
    return TrialContext(
        trial=Trial("prepare" if step else "search", name, arm, 0, SEED, epochs, {}, config),
        task=task,
        student=student,
        loss=LDT(),
        recipe=task.recipe,
        checkpoint=folder / "checkpoints" / arm.replace("/", "-"),
        storage=folder,
        device="cpu",
        recorded_epochs=0,
        train_on="train",
        validate=False,
        test=False,
    )


@click.command()
@click.option("--quick", is_flag=True, help="A short check, at a size too small for meaningful ratios.")
@click.option(
    "--depth", default=18, show_default=True, type=click.Choice([18, 34]), help="Depth of the student's ResNet."
)
@click.option("--size", default=512, show_default=True, type=click.IntRange(min=32), help="Height and width in pixels.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Epochs that count.")
@click.option(
    "--batches", default=1, show_default=True, type=click.IntRange(min=1), help="Batches of 5 faces per epoch."
)
def main(quick: bool, depth: int, size: int, rounds: int, batches: int) -> None:
    """Compare a trial with stored teacher logits with one that runs the live teacher."""
    if quick:
        size, rounds, batches = 32, 1, 1
    torch.set_num_threads(1)
    batch, student = 5, FCNResNet(depth)
    print(
        "\n".join(
            [*describe_machine(), f"faces    {size} × {size}, {batches} batches of {batch} per epoch, rounds: {rounds}"]
        )
    )
    with tempfile.TemporaryDirectory(prefix="kdstudy-parsing-") as temporary:
        folder = Path(temporary)
        task = make_task(batch * batches, size, batch, folder)
        stored_seconds = fill_store(task, folder, rounds + 1)
        trials = [time_epochs(one, folder, student, rounds + 1) for one in (task, task.with_live_teacher())]
        stored, live = zip(*list(zip(*trials, strict=True))[1:], strict=True)
    report(task, student.name, list(stored), list(live), stored_seconds, batch * batches)


def report(task: FaceParsing, name: str, stored: list[float], live: list[float], output: float, faces: int) -> None:
    """Print seconds per face and ratios: a table, then RESULT lines for programs."""
    ratios = [slow / fast for slow, fast in zip(live, stored, strict=True)]
    whole = [EPOCHS * slow / (EPOCHS * fast + 2 * faces * output) for slow, fast in zip(live, stored, strict=True)]
    assert task.stored_output_bytes is not None
    heads = [
        "student",
        "live teacher, s per face",
        "stored, s per face",
        "ratio",
        f"{EPOCHS} epochs, filled for one trial",
    ]
    seconds = [format_spread([epoch / faces for epoch in epochs], 2) for epochs in (live, stored)]
    rows = [heads, [name, *seconds, format_spread(ratios, 1), format_spread(whole, 1)]]
    print()
    print(format_table(rows))
    gigabytes = 2 * POOL * task.stored_output_bytes / 1e9
    print(f"\nstore    {output:.2f} s per output; CelebAMask-HQ, both views: {gigabytes:.1f} GB")
    print(f"goal     {GOAL:.0f} times, for ResNet-18 at 512 × 512\n")
    results = [format_result(f"{name}_stored_speedup", ratios, "x"), format_result(f"{name}_trial_speedup", whole, "x")]
    print("\n".join([*results, format_result("store_size", [gigabytes], "GB")]))


if __name__ == "__main__":
    main()

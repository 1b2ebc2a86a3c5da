"""Speed of the training loop against the usual one: python -m benchmarks.throughput [--quick].

Both loops train the same nets on the same images in one process with one torch thread. They alternate epoch by epoch,
so that other load on the machine slows both. An epoch is timed by the wall clock and includes its validation; ours also
includes its checkpoint. Images/s are training images over that time. The first epoch of each loop is a warm-up and does
not count. Ratios are taken within a round and then summarised. The peer (field_loop.py) computes in float32 in every
row.

Speed depends neither on the images nor on the teacher's weights: without --data-dir the images are random bytes in
CIFAR-100's shape, and the teacher is always an untrained ResNet-110. GPUs are measured by benchmarks.gpu.

It does depend on the memory allocator: glibc returns large blocks to the system and faults them in again, until a
larger one has been freed. Loading CIFAR frees such blocks, random images do not. Without --allocator default, glibc is
therefore set to keep them, for both loops; page faults are printed with the results. The peer gains more by this than
our loop.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import field_loop
from benchmarks.images import Images, find_cifar
from benchmarks.memory import count_page_faults, keep_freed_memory
from benchmarks.reporting import describe_machine, format_result, format_spread, format_table
from benchmarks.untrained import save_untrained_teacher
from study.errors import InputError
from study.task import Plan
from study.trial import Phase, Trial, TrialContext
from trainables.losses.logits.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification.task import Classification
from trainables.teacher import sources
from trainables.teacher.output_store import open_shard
from trainables.teacher.weights import Teacher, load_weights, teacher_folder
from trainables.training.nets import build_seeded
from trainables.training.recipe import PRECISIONS

SEED = 0
TRIALS, EPOCHS = 12, 80
"""The study over which the cost of filling the store is spread; each trial has its own seed."""
VALIDATION = 0.1


@dataclass(frozen=True)
class Round:
    """Seconds per training image of one student in one round; ours by precision."""

    ours: dict[str, float]
    field: float
    stored: float
    """Seconds per stored teacher output."""
    faults: float
    """The peer's page faults per training image."""

    def ratio(self, precision: str) -> float:
        """Return how many times faster our loop is."""
        return self.field / self.ours[precision]

    def study_ratio(self, precision: str, views: int) -> float:
        """Return the ratio over a whole study, in which filling the store counts as ours."""
        epochs = TRIALS * EPOCHS
        ours = epochs * self.ours[precision] + count_distinct_views(views) * self.stored
        return epochs * self.field / ours


def count_distinct_views(views: int) -> float:
    """Return the expected number of distinct views of an image in TRIALS · EPOCHS independent uniform draws."""
    return views * (1 - (1 - 1 / views) ** (TRIALS * EPOCHS))


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(task: Classification, student: ResNet, rounds: int, folder: Path) -> Iterator[Round]:
    """Train `student` with both loops alternately; a round is one epoch of the peer and one of ours per precision."""
    size = len(task.positions("train"))
    single, half = (
        _start_our_loop(task, student, precision, rounds + 1, folder) for precision in ("float32", "bfloat16")
    )
    field = _start_field_loop(task, student, folder)
    for number in range(rounds + 1):
        first = _time_epoch(single) / size
        faults = count_page_faults()
        peer = _time_epoch(field) / size
        faults = count_page_faults() - faults
        second = _time_epoch(half) / size
        # another seed for each student and round, so that some outputs are always missing
        stored = _store_outputs(task, folder, Plan(((1000 * student.depth + number, "train"),), 1))
        if number > 0:
            yield Round({"float32": first, "bfloat16": second}, peer, stored, faults / size)


def _time_epoch(epochs: Iterator[Any]) -> float:
    started = time.perf_counter()
    next(epochs)
    return time.perf_counter() - started


def _start_our_loop(task: Classification, student: ResNet, precision: str, epochs: int, folder: Path) -> Iterator[Any]:
    task = task.with_precision(precision)
    return task.train(_make_context(task, folder, "search", student, precision, epochs))


def _start_field_loop(task: Classification, student: ResNet, folder: Path) -> Iterator[Any]:
    images, train, val = task.loaded, task.positions("train").numpy(), task.positions("val").numpy()
    weights = teacher_folder(folder, task.teacher_key) / "weights.safetensors"
    return field_loop.train(
        student=build_seeded(lambda: task.build(student), SEED),
        teacher=load_weights(task.build(task.teacher.model), weights),
        train_set=field_loop.Images(
            images.train_images[train],
            images.train_labels[train],
            field_loop.make_train_transform(images.mean, images.std),
        ),
        val_set=field_loop.Images(
            images.train_images[val], images.train_labels[val], field_loop.make_val_transform(images.mean, images.std)
        ),
        batch_size=task.recipe.batch_size,
    )


def _store_outputs(task: Classification, folder: Path, plan: Plan) -> float:
    """Store the teacher outputs that the plan's trainings draw; return the seconds per output."""
    where = sources.store_folder(task, folder)
    before = _count_outputs(where)
    started = time.perf_counter()
    for step in task.list_preparations(folder, plan):
        list(task.prepare(_make_context(task, folder, "prepare", None, step.name, step.epochs, step.config)))
    seconds = time.perf_counter() - started
    return seconds / (_count_outputs(where) - before)


def _count_outputs(where: Path) -> int:
    return sum(len(open_shard(path).codes) for path in where.glob("*.safetensors"))


def _make_context(
    task: Classification, folder: Path, phase: Phase, student: Any, arm: str, epochs: int, config: Any = None
) -> TrialContext:
    name = student.name if student else ""
    return TrialContext(
        trial=Trial(phase, name, arm, 0, SEED, epochs, {}, config),
        task=task,
        student=student,
        loss=DKD(),
        recipe=task.recipe,
        checkpoint=folder / phase / name / arm,
        storage=folder,
        device="cpu",
        recorded_epochs=0,
        train_on="train",
        validate=True,
        test=False,
    )


# -- the command -------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--quick", is_flag=True, help="A short check: ResNet-8, few images and rounds.")
@click.option("--students", default="8,20", show_default=True, help="Depths of the students, separated by commas.")
@click.option(
    "--images", default=1024, show_default=True, type=click.IntRange(min=640), help="Training images per epoch."
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Epochs that count.")
@click.option(
    "--allocator",
    default="kept",
    show_default=True,
    type=click.Choice(["kept", "default"]),
    help="Freed large blocks: kept for reuse, or glibc's default.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Real CIFAR-10 or -100 instead of random images.")
def main(quick: bool, students: str, images: int, rounds: int, allocator: str, data_dir: Path | None) -> None:
    """Measure the images per second of the training loop and of the usual loop, alternately."""
    if quick:
        students, images, rounds = "8", 128, 1
    torch.set_num_threads(1)
    if allocator == "kept":
        keep_freed_memory()
    try:
        nets = [ResNet(depth) for depth in _parse_depths(students)]
        data = Images(round(images / (1 - VALIDATION)), find_cifar(data_dir) if data_dir else None)
        task = Classification(data, Teacher(ResNet(110)), validation=VALIDATION)
        size = len(task.positions("train"))
        print("\n".join([*describe_machine(), f"data     {task.loaded.name}, {size:,} training images"]))
        with tempfile.TemporaryDirectory() as folder:
            _measure_all(task, nets, rounds, Path(folder))
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _parse_depths(students: str) -> list[int]:
    try:
        return [int(depth) for depth in students.split(",")]
    except ValueError:
        raise InputError(f"--students {students!r}; allowed are depths separated by commas, such as 8,20") from None


def _measure_all(task: Classification, students: list[ResNet], rounds: int, folder: Path) -> None:
    save_untrained_teacher(task, folder)
    _store_outputs(task, folder, Plan(((SEED, "train"),), rounds + 1))
    measured = {student.name: list(measure(task, student, rounds, folder)) for student in students}
    report(measured, task.views.count)


def report(measured: dict[str, list[Round]], views: int) -> None:
    """Print medians, extremes and ratios: a table, then RESULT lines for programs."""
    rows = [["student", "precision", "ours, images/s", "field's, images/s", "ratio", f"{TRIALS} trials with store"]]
    results = []
    for student, rounds in measured.items():
        field = [1 / each.field for each in rounds]
        for precision in PRECISIONS:
            ours = [1 / each.ours[precision] for each in rounds]
            ratios = [each.ratio(precision) for each in rounds]
            studies = [each.study_ratio(precision, views) for each in rounds]
            images = [format_spread(speeds) for speeds in (ours, field)]
            rows.append([student, precision, *images, format_spread(ratios, 2), format_spread(studies, 2)])
            name = f"{student}_{precision}"
            results += [format_result(f"{name}_ours", ours, "images/s"), format_result(f"{name}_ratio", ratios, "x")]
            results += [format_result(f"{name}_study_ratio", studies, "x")]
        results += [format_result(f"{student}_field", field, "images/s")]
    stored = [1 / each.stored for rounds in measured.values() for each in rounds]
    faults = [each.faults for rounds in measured.values() for each in rounds]
    results += [format_result("store", stored, "outputs/s")]
    print()
    print(format_table(rows))
    print(f"\nstore    {format_spread(stored)} teacher outputs/s while it is filled")
    drawn = count_distinct_views(views)
    print(f"         {TRIALS} trials of {EPOCHS} epochs draw {drawn:.1f} of an image's {views} views")
    print(f"memory   {format_spread(faults)} page faults per image in the field's loop")
    print("all      median (min–max) over the rounds; ratios are of neighbouring epochs\n")
    print("\n".join(results))


if __name__ == "__main__":
    main()

"""How fast the training loop is against the field's usual one: python -m benchmarks.throughput [--quick].

Both loops train the same nets on the same images in one process with one torch thread, in turns, epoch by epoch, so
that whatever else the machine does slows both. An epoch is timed by the wall clock and includes its validation; ours
also its checkpoint. Images/s are training images over that time. The first epoch of each loop warms up and does not
count. Ratios are taken within a round and then summarised. The peer (field_loop.py) computes in float32 in every row.

Speed does not depend on what the images show, nor on what the teacher knows: without --data-dir the images are random
bytes in CIFAR-100's shape, and the teacher is an untrained ResNet-110 in either case. GPUs are not measured here.

It does depend on the memory allocator: glibc hands large blocks back to the system and has them faulted in anew, until
a larger one has been freed. Loading CIFAR frees such blocks, random images do not, so without --allocator default it is
told to keep them, for both loops; page faults are printed with the results. The peer gains more by it than we do.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import field_loop
from benchmarks.images import Images, cifar
from benchmarks.reporting import machine, result, spread, table
from benchmarks.untrained import keep_untrained_teacher
from study.errors import InputError
from study.task import Plan
from study.trial import Phase, Trial, TrialContext
from trainables.losses.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification import Classification
from trainables.teacher import output_store as store
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training.nets import build_seeded
from trainables.training.recipe import PRECISIONS

SEED = 0
TRIALS, EPOCHS = 12, 80
"""The study over which the store's construction is spread; its trials have seeds of their own."""
VALIDATION = 0.1


@dataclass(frozen=True)
class Round:
    """Seconds per training image of one student in one round, by precision where it has one."""

    ours: dict[str, float]
    field: float
    stored: float
    """Per output of the teacher that is stored."""
    faults: float
    """Page faults per training image of the peer's."""

    def ratio(self, precision: str) -> float:
        return self.field / self.ours[precision]

    def study_ratio(self, precision: str, views: int) -> float:
        """The ratio over a whole study, the store's construction counted as ours."""
        epochs = TRIALS * EPOCHS
        ours = epochs * self.ours[precision] + distinct_views(views) * self.stored
        return epochs * self.field / ours


def distinct_views(views: int) -> float:
    """How many different views of an image TRIALS · EPOCHS independent uniform draws are expected to give."""
    return views * (1 - (1 - 1 / views) ** (TRIALS * EPOCHS))


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(task: Classification, student: ResNet, rounds: int, folder: Path) -> Iterator[Round]:
    """Train `student` with both loops in turns; a round is an epoch of the peer and one of ours in each precision."""
    size = len(task.positions("train"))
    single, half = (_ours(task, student, precision, rounds + 1, folder) for precision in ("float32", "bfloat16"))
    field = _field(task, student, folder)
    for number in range(rounds + 1):
        first = _seconds(single) / size
        faults = _faults()
        peer = _seconds(field) / size
        faults = _faults() - faults
        second = _seconds(half) / size
        # a seed of its own for each student and round, so that there is always something to store
        stored = _store_outputs(task, folder, Plan(((1000 * student.depth + number, "train"),), 1))
        if number > 0:
            yield Round({"float32": first, "bfloat16": second}, peer, stored, faults / size)


def _seconds(epochs: Iterator[Any]) -> float:
    started = time.perf_counter()
    next(epochs)
    return time.perf_counter() - started


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _keep_freed_memory() -> None:
    """Have glibc serve large blocks from memory that it keeps; other C libraries are left as they are."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)


def _ours(task: Classification, student: ResNet, precision: str, epochs: int, folder: Path) -> Iterator[Any]:
    task = task.with_precision(precision)
    return task.train(_job(task, folder, "search", student, precision, epochs))


def _field(task: Classification, student: ResNet, folder: Path) -> Iterator[Any]:
    images, train, val = task.loaded, task.positions("train").numpy(), task.positions("val").numpy()
    weights = teachers.teacher_folder(folder, task.teacher_key) / "weights.safetensors"
    return field_loop.train(
        student=build_seeded(lambda: task.build(student), SEED),
        teacher=teachers.load_weights(task.build(task.teacher.model), weights),
        train_set=field_loop.Images(
            images.train_images[train], images.train_labels[train], field_loop.augmented(images.mean, images.std)
        ),
        val_set=field_loop.Images(
            images.train_images[val], images.train_labels[val], field_loop.plain(images.mean, images.std)
        ),
        batch_size=task.recipe.batch_size,
    )


def _store_outputs(task: Classification, folder: Path, plan: Plan) -> float:
    """Store what the plan's trainings will draw; returns the seconds per output."""
    where = sources.store_folder(task, folder)
    held = _held(where)
    started = time.perf_counter()
    for step in task.list_preparations(folder, plan):
        list(task.prepare(_job(task, folder, "prepare", None, step.name, step.epochs, step.config)))
    seconds = time.perf_counter() - started
    return seconds / (_held(where) - held)


def _held(where: Path) -> int:
    return sum(len(store.open_shard(path).codes) for path in where.glob("*.safetensors"))


def _job(
    task: Classification, folder: Path, phase: Phase, student: Any, arm: str, epochs: int, config: Any = None
) -> TrialContext:
    name = student.name if student else ""
    return TrialContext(
        trial=Trial(phase, name, arm, 0, SEED, epochs, {}, config),
        task=task,
        student=student,
        loss=DKD(),
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
@click.option("--quick", is_flag=True, help="A short run that shows that all works: ResNet-8, few images and rounds.")
@click.option("--students", default="8,20", show_default=True, help="Depths of the students, with commas between.")
@click.option("--images", default=1024, show_default=True, type=click.IntRange(min=640), help="Trained on in an epoch.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Epochs that count.")
@click.option(
    "--allocator",
    default="kept",
    show_default=True,
    type=click.Choice(["kept", "default"]),
    help="Of large blocks: kept for reuse.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Real CIFAR-10 or -100 instead of random images.")
def main(quick: bool, students: str, images: int, rounds: int, allocator: str, data_dir: Path | None) -> None:
    """Images per second of the training loop and of the field's usual loop, in turns."""
    if quick:
        students, images, rounds = "8", 192, 3
    torch.set_num_threads(1)
    if allocator == "kept":
        _keep_freed_memory()
    try:
        nets = [ResNet(depth) for depth in _depths(students)]
        data = Images(round(images / (1 - VALIDATION)), cifar(data_dir) if data_dir else None)
        task = Classification(data, Teacher(ResNet(110)), validation=VALIDATION)
        print("\n".join([*machine(), f"data     {task.loaded.name}, {len(task.positions('train')):,} trained on"]))
        with tempfile.TemporaryDirectory() as folder:
            _run(task, nets, rounds, Path(folder))
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _depths(students: str) -> list[int]:
    try:
        return [int(depth) for depth in students.split(",")]
    except ValueError:
        raise InputError(f"--students {students!r}; allowed are depths with commas between, such as 8,20") from None


def _run(task: Classification, students: list[ResNet], rounds: int, folder: Path) -> None:
    keep_untrained_teacher(task, folder)
    _store_outputs(task, folder, Plan(((SEED, "train"),), rounds + 1))
    measured = {student.name: list(measure(task, student, rounds, folder)) for student in students}
    report(measured, task.views.count)


def report(measured: dict[str, list[Round]], views: int) -> None:
    """Print medians, extremes and ratios: a table, then lines to be read by programs."""
    rows = [["student", "precision", "ours, images/s", "field's, images/s", "ratio", f"{TRIALS} trials with store"]]
    results = []
    for student, rounds in measured.items():
        field = [1 / each.field for each in rounds]
        for precision in PRECISIONS:
            ours = [1 / each.ours[precision] for each in rounds]
            ratios = [each.ratio(precision) for each in rounds]
            studies = [each.study_ratio(precision, views) for each in rounds]
            rows.append([student, precision, spread(ours), spread(field), spread(ratios, 2), spread(studies, 2)])
            name = f"{student}_{precision}"
            results += [result(f"{name}_ours", ours, "images/s"), result(f"{name}_ratio", ratios, "x")]
            results += [result(f"{name}_study_ratio", studies, "x")]
        results += [result(f"{student}_field", field, "images/s")]
    stored = [1 / each.stored for rounds in measured.values() for each in rounds]
    faults = [each.faults for rounds in measured.values() for each in rounds]
    results += [result("store", stored, "outputs/s")]
    print()
    print(table(rows))
    print(f"\nstore    {spread(stored)} teacher outputs/s while it is filled")
    print(f"         {TRIALS} trials of {EPOCHS} epochs draw {distinct_views(views):.1f} of an image's {views} views")
    print(f"memory   {spread(faults)} page faults per image in the field's loop")
    print("all      median (min–max) over the rounds; ratios are of neighbouring epochs\n")
    print("\n".join(results))


if __name__ == "__main__":
    main()

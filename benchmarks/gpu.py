"""What a GPU makes of the training loop: python -m benchmarks.gpu [--quick]. Needs no Ray.

Four questions, in images trained on a second: one trial with the teacher's logits stored and with a live teacher, in
both precisions; a step launched kernel by kernel against the same step replayed as a CUDA graph; several trials at
once, in processes of their own or as streams of one; and how long the paper's whole trial takes, with its checkpoints
and a test on 100 images.

Speed depends neither on what images show nor on what nets know: images are random bytes in CIFAR-100's shape, stored
logits are random, and the live teacher is an untrained ResNet-110. The first epoch of every training warms up and does
not count. Without a GPU it runs on the processor, in one thread, and says so: then it shows that it works, no more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.reporting import machine, result, spread, table
from benchmarks.side_by_side import SEED, by_processes, by_streams, job_of, task_of
from benchmarks.untrained import keep_untrained_teacher
from study.task import Plan
from study.trial import TrialContext
from trainables.losses.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.task import Outputs
from trainables.tasks.classification import Classification
from trainables.teacher import output_store as store
from trainables.teacher import preparation as preparing
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.training.nets import to_device
from trainables.training.recipe import PRECISIONS
from trainables.training.schedules import Progress

GOAL_SECONDS = 12.0
"""An H200's goal for 80 epochs of ResNet-8 on 50,000 images."""
STEPS = 200


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


def epochs_per_second(job: TrialContext) -> Iterator[float]:
    """Of each epoch after the first: a row is only told once the device has done its work."""
    rows = job.task.train(job)
    next(rows)
    for _ in range(1, job.trial.epochs):
        started = time.perf_counter()
        next(rows)
        yield 1 / (time.perf_counter() - started)


def alone(task: Classification, folder: Path, students: list[ResNet], device: str, epochs: int) -> list[list[Any]]:
    """Rows of (student, teacher, precision, images/s of each epoch)."""
    rows: list[list[Any]] = []
    for student in students:
        for source in (task, task.with_live_teacher()):
            for precision in PRECISIONS:
                job = job_of(source.with_precision(precision), folder, student, device, epochs)
                speeds = [rate * len(task.positions("train+val")) for rate in epochs_per_second(job)]
                rows.append([student.name, "stored" if source.teacher_store else "live", precision, speeds])
    return rows


# -- one step as a graph -----------------------------------------------------------------------------------------------


def step_of(task: Classification, student: ResNet, device: str) -> Callable[[], None]:
    """A step of the training on one batch that stays where it is."""
    net = to_device(task.build(student), device).train()
    optimizer = task.recipe.optimizer.build(net.parameters())
    samples = torch.arange(task.recipe.batch_size, device=device)
    batch = task.examples("train+val", device).batch(samples, samples % task.views.count)
    taught = Outputs(torch.randn(len(samples), task.stored_output_bytes // 2, device=device).half())  # type: ignore[operator]
    loss, halfway = DKD(), Progress(0, 1, 0.5)

    def step() -> None:
        said = task.outputs(net, batch)
        total: Tensor = task.task_loss(said, batch) + loss(said, taught, batch.targets, halfway)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def as_graph(step: Callable[[], None]) -> Callable[[], None]:
    """The same step, recorded once and replayed."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(recorded: Callable[[], None] = step) -> None:
        graph.replay()  # it reads and writes the tensors of the step that was `recorded`, which must stay

    return replay


def images_per_second(step: Callable[[], None], batch: int, device: str, steps: int) -> float:
    for _ in range(3):
        step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return batch * steps / (time.perf_counter() - started)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# -- the command -------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--quick", is_flag=True, help="A short run that shows that all works: few images, epochs and copies.")
@click.option("--images", default=50_000, show_default=True, type=click.IntRange(min=128), help="Trained on.")
@click.option("--epochs", default=80, show_default=True, type=click.IntRange(min=2), help="Of the whole trial.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Epochs that count elsewhere.")
@click.option("--copies", default="2,4,8", show_default=True, help="Trials at once, with commas between.")
def main(quick: bool, images: int, epochs: int, rounds: int, copies: str) -> None:
    """Images per second of the training loop on this machine's GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if quick:
        images, epochs, rounds, copies = 256, 2, 1, "2"
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu: no GPU here"
    print("\n".join([*machine(), f"device   {name}"]))
    students, task = [ResNet(8)] if quick else [ResNet(8), ResNet(20)], task_of(images)
    with tempfile.TemporaryDirectory(prefix="kdstudy-gpu-") as temporary:
        folder = Path(temporary)
        keep_untrained_teacher(task, folder)
        store_anything(task, folder, max(epochs, rounds + 1))
        results = _report_alone(alone(task, folder, students, device, rounds + 1), device)
        results += _report_graph(task, students, device, 3 if quick else STEPS)
        counts = [int(count) for count in copies.split(",")]
        results += _report_together(images, folder, students[0], device, rounds + 1, counts)
        started = time.perf_counter()
        list(task.train(job_of(task, folder, students[0], device, epochs, "whole")))
        seconds = time.perf_counter() - started
    print(f"\ntrial    {epochs} epochs of {images:,} images, {students[0].name}: {seconds:.1f} s")
    print(f"goal     {GOAL_SECONDS:.0f} s for 80 epochs of 50,000 images on an H200\n")
    print("\n".join([*results, result(f"{device}_trial_seconds", [seconds], "s")]))


def _report_alone(rows: list[list[Any]], device: str) -> list[str]:
    shown = [[*names, spread(speeds)] for *names, speeds in rows]
    print("\n" + table([["student", "teacher", "precision", "images/s"], *shown]))
    return [result("_".join([device, *names]), speeds, "images/s") for *names, speeds in rows]


def _report_graph(task: Classification, students: list[ResNet], device: str, steps: int) -> list[str]:
    results, rows = [], [["student", "step", "images/s"]]
    for student in students:
        step, batch = step_of(task, student, device), task.recipe.batch_size
        ways = {"launched": step} | ({"graph": as_graph(step_of(task, student, device))} if device == "cuda" else {})
        speeds = {way: images_per_second(run, batch, device, steps) for way, run in ways.items()}
        rows += [[student.name, way, f"{speed:,.0f}"] for way, speed in speeds.items()]
        results += [result(f"{device}_{student.name}_{way}", [speed], "images/s") for way, speed in speeds.items()]
    print("\n" + table(rows))
    return results


def _report_together(
    images: int, folder: Path, student: ResNet, device: str, epochs: int, copies: list[int]
) -> list[str]:
    results, rows = [], [["trials at once", "in processes, images/s", "as streams, images/s"]]
    for count in copies:
        speeds = [run(images, folder, student, device, epochs, count) for run in (by_processes, by_streams)]
        rows.append([str(count), *(f"{speed:,.0f}" for speed in speeds)])
        for way, speed in zip(("processes", "streams"), speeds, strict=True):
            results.append(result(f"{device}_{student.name}_{count}_{way}", [speed], "images/s"))
    print("\n" + table(rows))
    return results


if __name__ == "__main__":
    main()

"""Share and memory of the losses in a training step of face parsing: python -m benchmarks.parsing_step [--quick].

One step of a student under LDT and cross-entropy, with stored teacher logits, in parts: forward pass, losses with their
gradient at the head, backward pass and optimizer, meters. Twice: with the losses as the task computes them, block by
block, and on whole maps, as autograd differentiates the formula. Each form has its own process with one torch thread;
both take their steps in turn. Times are processor time; memory is the rise of the process's peak in its first step.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reporting import describe_machine, format_result, format_spread, format_table
from trainables.data.arrays.face_parsing import CLASSES
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.common.row_blocks import mean_cross_entropy
from trainables.losses.logits.kd import kd
from trainables.losses.pixels.ldt import LDT
from trainables.models.segmentation import FCNResNet
from trainables.task import Batch, Outputs
from trainables.tasks.segmentation.face_parsing import PARTS
from trainables.tasks.segmentation.metrics import SegmentationScores
from trainables.training.settings import Progress

BATCH = 5
TEACHER_STRIDE = 8
"""Pixels of a side for each of the stored logits of FCN on ResNet-101."""
SHARES = ("forward", "losses", "backward", "meters")
FORMS = ("blocks", "whole maps")
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of ru_maxrss."""


class Step:
    """A student, a batch of random faces, and the step that trains the one on the other."""

    def __init__(self, form: str, depth: int, size: int):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        net = FCNResNet(depth).build(len(CLASSES))
        self._form, self._net = form, net.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(net.parameters(), 0.01)
        images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
        nothing = torch.zeros(0, dtype=torch.int64)
        self._batch = Batch(images, torch.randint(len(CLASSES), (BATCH, size, size)), nothing, nothing)
        side = -(-size // TEACHER_STRIDE)
        self._teacher = 3 * torch.randn(BATCH, len(CLASSES), side, side)
        self._meters = SegmentationScores(PARTS, "cpu", by_class=False)

    def run(self) -> list[float]:
        """Take one step; return the processor seconds of each of `SHARES`."""
        marks = [time.process_time()]
        prediction: Tensor = self._net(self._batch.inputs)  # (B, K, h, w)
        marks.append(time.process_time())
        head = prediction.detach().requires_grad_()
        self._compute_loss(head).backward()  # type: ignore[no-untyped-call]
        marks.append(time.process_time())
        self._optimizer.zero_grad()
        prediction.backward(head.grad)  # type: ignore[no-untyped-call]
        self._optimizer.step()
        marks.append(time.process_time())
        self._meters.update(Outputs(prediction), self._batch)
        marks.append(time.process_time())
        return [later - earlier for earlier, later in itertools.pairwise(marks)]

    def _compute_loss(self, head: Tensor) -> Tensor:
        labels = self._batch.targets
        if self._form == "blocks":
            distill_loss = LDT()(Outputs(head), Outputs(self._teacher), labels, Progress(0, 1))
            return mean_cross_entropy(head, labels) + distill_loss
        size = (labels.shape[1], labels.shape[2])
        z_s, z_t = upsample_logits(head, size), upsample_logits(self._teacher, size)
        centred = z_s - z_s.mean(dim=1, keepdim=True)
        sigma_s, sigma_t = (_std(z) for z in (z_s, z_t))
        return F.cross_entropy(z_s, labels) + kd(centred / sigma_s * sigma_t, z_t, 1.0).mean()


def _std(z: Tensor) -> Tensor:
    centred = z - z.mean(dim=1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return norm / math.sqrt(z.shape[1] - 1)


def run_steps(connection: Connection, form: str, depth: int, size: int) -> None:
    """Send the rise of the peak memory in the first step, in bytes, then the times of a step for each request."""
    step = Step(form, depth, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step.run()
    connection.send(MEMORY_UNIT * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    while connection.recv():
        connection.send(step.run())


def measure(depth: int, size: int, rounds: int) -> tuple[dict[str, list[list[float]]], dict[str, float]]:
    """Return for each form the times of its steps, and its peak memory in bytes."""
    spawn, connections, processes = multiprocessing.get_context("spawn"), {}, []
    for form in FORMS:
        connections[form], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=run_steps, args=(theirs, form, depth, size)))
        processes[-1].start()
    memory = {form: float(connections[form].recv()) for form in FORMS}
    times: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    for form in FORMS * rounds:
        connections[form].send(True)
        times[form].append(connections[form].recv())
    for form, process in zip(FORMS, processes, strict=True):
        connections[form].send(False)
        process.join()
    return times, memory


@click.command()
@click.option("--quick", is_flag=True, help="A short check, at a size too small for meaningful ratios.")
@click.option("--depth", default=18, show_default=True, type=click.Choice([18, 34]), help="Depth of the ResNet.")
@click.option("--size", default=512, show_default=True, type=click.IntRange(min=32), help="Height and width in pixels.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Steps that count.")
def main(quick: bool, depth: int, size: int, rounds: int) -> None:
    """Measure the losses' share of a training step of face parsing and the step's peak memory."""
    if quick:
        size, rounds = 64, 1
    print("\n".join([*describe_machine(), f"step     {BATCH} faces of {size} × {size}, rounds: {rounds}\n"]))
    times, memory = measure(depth, size, rounds)
    rows, shares = [["losses", *(f"{part}, ms per face" for part in SHARES), "losses' share, %", "peak, MB"]], {}
    for form in FORMS:
        shares[form] = [100 * step[SHARES.index("losses")] / sum(step) for step in times[form]]
        parts = [format_spread([1000 * seconds / BATCH for seconds in part]) for part in zip(*times[form], strict=True)]
        rows.append([form, *parts, format_spread(shares[form], 1), f"{memory[form] / 1e6:,.0f}"])
    print(format_table(rows) + "\n")
    losses = [[step[SHARES.index("losses")] for step in times[form]] for form in FORMS]
    speedup = statistics.median(losses[1]) / statistics.median(losses[0])
    print(format_result("loss_share", shares["blocks"], "%"))
    print(format_result("loss_share_of_whole_maps", shares["whole maps"], "%"))
    print(format_result("loss_speedup", [speedup], "x"))
    print(format_result("peak_memory", [memory["blocks"] / 1e6], "MB"))
    print(format_result("peak_memory_of_whole_maps", [memory["whole maps"] / 1e6], "MB"))


if __name__ == "__main__":
    main()

"""Metrics of a net: of the batches of a training epoch, and of a split's untouched images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.trial import Split
from trainables.task import Batch, DistillationLoss, Examples, Outputs, index_device, prefetch
from trainables.training.distributed import SINGLE_PROCESS, BatchShard, ProcessGroup

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


class EpochMeters:
    """Losses, distances to the teacher and scores of an epoch's training batches.

    They are added up on the device: reading a number back would wait for every step.
    """

    def __init__(self, task: DistillationTask[Any], loss: DistillationLoss, device: str):
        self._task, self._scores = task, task.meters(device, "train")
        self._names = ["loss", "task_loss", "distill_loss"]
        self._has_teacher = loss.needs_teacher
        if self._has_teacher:
            self._names += ["teacher_distance", *(metric.name for metric in task.further_distances)]
        self._sums = torch.zeros(len(self._names), device=device)

    @torch.no_grad()
    def update(
        self, shard: BatchShard, batch: Batch, student: Outputs, teacher: Outputs, losses: tuple[Tensor, ...]
    ) -> None:
        """Add a shard; `losses` are its total, task and distillation loss, () each."""
        means = torch.stack(losses)
        if self._has_teacher:
            means = torch.cat([means, self._task.measure_distances(student, teacher)])
        self._sums.add_(means * (shard.weight * shard.batch_size))
        if shard.weight:
            self._scores.update(student, batch)

    def compute(self, group: ProcessGroup, samples: int) -> dict[str, float]:
        """Return the metrics by `train/name`, means over this many samples of all workers."""
        means = (group.all_reduce_sum(self._sums) / samples).tolist()
        metrics = dict(zip(self._names, means, strict=True)) | self._scores.compute()
        return {f"train/{name}": value for name, value in metrics.items()}


def evaluate(
    task: DistillationTask[Any], net: nn.Module, split: Split, device: str, group: ProcessGroup = SINGLE_PROCESS
) -> dict[str, float]:
    """Return the task's metrics on a split's untouched images, by `split/name`; the same on all workers."""
    return evaluate_examples(task, net, task.examples(split, device), split, device, group)


@torch.no_grad()
def evaluate_examples(
    task: DistillationTask[Any],
    net: nn.Module,
    examples: Examples,
    split: Split,
    device: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, float]:
    """Return the task's metrics on these examples of a split."""
    net.eval()
    meters = task.meters(device, split)
    batches = torch.arange(len(examples), device=index_device(examples, device)).split(task.evaluation_batch(device))
    shards = group.shard_batches(batches)
    prefetch(examples, ((samples, torch.zeros_like(samples)) for samples in shards))
    for samples in shards:  # (B,)
        batch = examples.batch(samples, torch.zeros_like(samples))
        meters.update(task.outputs(net, batch), batch)
    return {f"{split}/{name}": value for name, value in meters.compute().items()}

"""Data-parallel training in one trial: workers split every batch and take the same optimizer step.

Every worker holds the complete net and draws the complete sample order, so gradients, losses and metrics equal those
of a single worker up to rounding, with one exception: a loss that needs the batch as a whole, such as one that ranks
samples or averages over some of their pixels, sees one shard at a time. Batch norm and dropout act as on the whole
batch (training/sharded_layers.py; on GPUs torch.nn.SyncBatchNorm).

Gradients are summed here, in the process group that Ray Train has initialised, and not by DistributedDataParallel,
which `ray.train.torch.prepare_model` would use: it averages over workers regardless of shard sizes, waits for
gradients of parameters that a loss may not use, and changes the names in the net's state_dict. A hook on its buckets
could weight the shards, not avoid the other two. The price: DDP overlaps communication with the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from study.trial import TrialContext
from trainables.training.sharded_layers import shard_layers


@dataclass(frozen=True)
class BatchShard:
    """One worker's share of a batch."""

    samples: Tensor
    """(B,) int64 positions in the split."""
    weight: float
    """Weight of this shard's mean in the mean over the batch; 0 for a copy of samples that rank 0 computes too."""
    start: int
    """Position of the shard's first sample in the batch."""
    batch_size: int

    @property
    def is_split(self) -> bool:
        """False if each worker computes the whole batch."""
        return len(self.samples) < self.batch_size


NO_SHARD = BatchShard(torch.empty(0, dtype=torch.int64), 1.0, 0, 0)


@dataclass
class ProcessGroup:
    """The workers of a training, from the view of one. This base class is the group of a single process."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True for rank 0, the only worker that writes files."""
        return self.rank == 0

    def prepare_model(self, net: nn.Module) -> nn.Module:
        """Return the net ready for training by all workers; the names in its state_dict stay the same."""
        return net

    def cut_batch(self, samples: Tensor) -> BatchShard:
        """Return this worker's shard of a batch, (B,) int64 positions."""
        return BatchShard(samples, 1.0, 0, len(samples))

    def shard_batch(self, samples: Tensor) -> BatchShard:
        """Return this worker's shard of a batch as `cut_batch` does, and make it the one that the net computes next."""
        return self.cut_batch(samples)

    def shard_batches(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the batches that this worker evaluates, uncut: outputs equal those of a single worker."""
        return batches

    def all_reduce_gradients(self, net: nn.Module) -> None:
        """Replace each worker's gradients by the sum over all workers."""

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of `numbers`, of any one shape, over all workers; may change `numbers` in place."""
        return numbers

    def broadcast_buffers(self, net: nn.Module) -> None:
        """Replace each worker's buffers by those of rank 0."""

    def barrier(self) -> None:
        """Wait until all workers have got here."""


class DistributedGroup(ProcessGroup):
    """Two or more workers, connected by torch.distributed."""

    shard: BatchShard = NO_SHARD
    """This worker's shard of the current batch."""

    def prepare_model(self, net: nn.Module) -> nn.Module:
        if next(net.parameters()).is_cuda:
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        shard_layers(net, self)
        return net

    def cut_batch(self, samples: Tensor) -> BatchShard:
        if len(samples) < self.world_size:
            return BatchShard(samples, float(self.is_main), 0, len(samples))
        shards = samples.tensor_split(self.world_size)
        start = sum(len(shard) for shard in shards[: self.rank])
        return BatchShard(shards[self.rank], len(shards[self.rank]) / len(samples), start, len(samples))

    def shard_batch(self, samples: Tensor) -> BatchShard:
        self.shard = self.cut_batch(samples)
        return self.shard

    def shard_batches(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        return batches[self.rank :: self.world_size]

    def all_reduce_gradients(self, net: nn.Module) -> None:
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        flat = self.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        dist.all_reduce(numbers)
        return numbers

    def broadcast_buffers(self, net: nn.Module) -> None:
        for buffer in net.buffers():
            dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        dist.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_group(context: TrialContext) -> Iterator[ProcessGroup]:
    """Yield the group of the workers that train this trial together.

    Ray Train has initialised torch.distributed in their processes, for all trials that they train one after the other.
    Within the context, meters of torchmetrics reduce over all workers by themselves. A training by one worker leaves
    such a group first, because meters would wait for workers that do not train; the engine then renews the processes.
    Raises RuntimeError if the trial has several workers and torch.distributed is not initialised.
    """
    if context.workers == 1:
        if dist.is_initialized():
            dist.destroy_process_group()
        yield SINGLE_PROCESS
        return
    if not dist.is_initialized():
        raise RuntimeError(f"a trial of {context.workers} workers needs torch.distributed, which Ray Train initialises")
    yield DistributedGroup(context.rank, context.workers)

"""Data-parallel training in one trial: workers split every batch and take the same optimizer step.

Every worker holds the complete net and draws the complete sample order, so gradients, losses and metrics equal those
of a single worker up to rounding, with one exception: a loss that needs the batch as a whole, such as one that ranks
samples or averages over some of their pixels, sees one shard at a time. Batch norm averages over all workers: on GPUs
by torch.nn.SyncBatchNorm, elsewhere by training/batch_norm.py.

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
from trainables.training.batch_norm import synchronize_batch_norms


@dataclass(frozen=True)
class BatchShard:
    """One worker's share of a batch."""

    samples: Tensor
    """(B,) int64 positions in the split."""
    weight: float
    """Weight of this shard's mean in the mean over the batch; 0 for a copy of samples that rank 0 computes too."""


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

    def shard_batch(self, samples: Tensor) -> BatchShard:
        """Return this worker's shard of a batch, (B,) int64 positions."""
        return BatchShard(samples, 1.0)

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

    batch_is_split: bool = False
    """False if each worker computes the whole of the current batch, whose statistics it then need not share."""

    def prepare_model(self, net: nn.Module) -> nn.Module:
        on_gpu = next(net.parameters()).is_cuda
        return nn.SyncBatchNorm.convert_sync_batchnorm(net) if on_gpu else synchronize_batch_norms(net, self)

    def shard_batch(self, samples: Tensor) -> BatchShard:
        self.batch_is_split = len(samples) >= self.world_size
        if not self.batch_is_split:
            return BatchShard(samples, float(self.is_main))
        shard = samples.tensor_split(self.world_size)[self.rank]
        return BatchShard(shard, len(shard) / len(samples))

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
def join_group(job: TrialContext) -> Iterator[ProcessGroup]:
    """Yield the group of the workers that train this trial together.

    Ray Train has initialised torch.distributed in their processes, for all trials that they train one after the other.
    Within the context, meters of torchmetrics reduce over all workers by themselves. A training by one worker leaves
    such a group first, because meters would wait for workers that do not train; the engine then renews the processes.
    Raises RuntimeError if the trial has several workers and torch.distributed is not initialised.
    """
    if job.workers == 1:
        if dist.is_initialized():
            dist.destroy_process_group()
        yield SINGLE_PROCESS
        return
    if not dist.is_initialized():
        raise RuntimeError(f"a trial of {job.workers} workers needs torch.distributed, which Ray Train initialises")
    yield DistributedGroup(job.rank, job.workers)

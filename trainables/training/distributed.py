"""Several workers in one training: each computes a part of every batch, and all take the same step.

Every worker holds the whole net and draws the whole order, so that nothing depends on how many there are but rounding
and two things. A loss that looks at a batch as a whole, such as one that ranks its samples or takes a mean over some of
its pixels, sees a part of it. Batch norm takes its statistics over all workers on GPUs (torch.nn.SyncBatchNorm), which
torch cannot do on CPUs: there each worker normalises by its own part, and the running statistics that count are the
first worker's.

Gradients are added here and not by torch's DistributedDataParallel: that takes the mean over workers whatever the size
of their parts, waits for gradients of parameters that a loss may not use, and hides the net behind a wrapper. What it
does better is to add while the backward pass still runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from study.trial import TrialContext

PATIENCE = timedelta(days=7)
"""How long a worker waits for the others: no worker's silence counts here, the engine ends what hangs."""


@dataclass(frozen=True)
class Part:
    """What one worker computes of a batch."""

    samples: Tensor
    """(B,) int64 positions in the split."""
    weight: float
    """Of its mean in the mean over the whole batch; 0 where others compute these samples too, and theirs count."""


@dataclass(frozen=True)
class ProcessGroup:
    """The workers of a training, seen from one of them. This is the form for one alone: there is nothing to share."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def prepare_model(self, net: nn.Module) -> nn.Module:
        """The net, ready to be trained by all; its state is still called the same."""
        return net

    def shard_batch(self, whole: Tensor) -> Part:
        """This worker's part of a batch (B,)."""
        return Part(whole, 1.0)

    def shard_batches(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """The batches that this worker evaluates: whole ones, so that a net says of them what it says to one alone."""
        return batches

    def all_reduce_gradients(self, net: nn.Module) -> None:
        """Give each worker's net the sum of all their gradients."""

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """The sum over all workers."""
        return numbers

    def broadcast_buffers(self, net: nn.Module) -> None:
        """Give each worker's net the running statistics of the first one's."""


class DistributedGroup(ProcessGroup):
    """Two workers or more, whose torch processes have found each other."""

    def prepare_model(self, net: nn.Module) -> nn.Module:
        on_gpu = next(net.parameters()).is_cuda
        return nn.SyncBatchNorm.convert_sync_batchnorm(net) if on_gpu else net

    def shard_batch(self, whole: Tensor) -> Part:
        if len(whole) < self.count:  # too few for all: each computes all, as batch norm is the same over copies
            return Part(whole, float(self.is_main))
        samples = whole.tensor_split(self.count)[self.rank]
        return Part(samples, len(samples) / len(whole))

    def shard_batches(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        return batches[self.rank :: self.count]

    def all_reduce_gradients(self, net: nn.Module) -> None:
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        flat = self.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, added in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(added.view_as(gradient))

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        dist.all_reduce(numbers)
        return numbers

    def broadcast_buffers(self, net: nn.Module) -> None:
        for buffer in net.buffers():
            dist.broadcast(buffer, 0)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_group(job: TrialContext) -> Iterator[ProcessGroup]:
    """The workers of a trial, once all of them have come, until its training ends or is given up.

    While they are joined, meters of torchmetrics compute over all of them by themselves.
    """
    if job.workers == 1:
        yield SINGLE_PROCESS
        return
    host, _, port = job.rendezvous_address.rpartition(":")
    store = TCPStore(host, int(port), job.workers, is_master=job.rank == 0, timeout=PATIENCE)
    backend = _backend(store, job)
    dist.init_process_group(backend, store=store, rank=job.rank, world_size=job.workers, timeout=PATIENCE)
    try:
        yield DistributedGroup(job.rank, job.workers)
    except Exception:
        # not parted: the others would fail by the lost connection, and might be heard before the cause
        raise
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _backend(store: TCPStore, job: TrialContext) -> str:
    """What carries tensors between workers: NCCL, which needs a GPU for each, else gloo."""
    if job.device == "cpu":
        return "gloo"
    store.set(f"gpu {job.rank}", str(torch.cuda.get_device_properties(0).uuid))
    gpus = {store.get(f"gpu {rank}") for rank in range(job.workers)}
    return "nccl" if len(gpus) == job.workers else "gloo"

"""Layers that see one shard of a batch and do in training what they would do with the whole batch.

Batch norm is synchronised here on devices that torch.nn.SyncBatchNorm does not support, such as CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import AlphaDropout, FeatureAlphaDropout, _DropoutNd

if TYPE_CHECKING:
    from trainables.training.distributed import DistributedGroup

Forward = Callable[[Tensor], Tensor]


def shard_layers(net: nn.Module, group: DistributedGroup) -> None:
    """Let batch norms and dropouts act on the whole batch; layers stay the same objects, with their state and hooks."""
    for layer in net.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            layer.forward = partial(_normalise_whole_batch, layer, layer.forward, group)  # type: ignore[method-assign]
        elif isinstance(layer, _DropoutNd) and not isinstance(layer, AlphaDropout | FeatureAlphaDropout):
            layer.forward = partial(_drop_of_whole_batch, layer, layer.forward, group)


def _drop_of_whole_batch(layer: _DropoutNd, forward: Forward, group: DistributedGroup, inputs: Tensor) -> Tensor:
    """Apply this shard's part of the mask that a single worker draws, to (B, …), or to (B · H, …) as of H heads.

    Random numbers are those of a single worker if all workers' generators have its state. Activations that do not have
    the shard's samples in their first dimension get a mask of their own.
    """
    shard = group.shard
    if not (layer.training and shard.is_split) or len(inputs) % len(shard.samples):
        return forward(inputs)
    rows = len(inputs) // len(shard.samples)
    ones = inputs.new_ones(rows * shard.batch_size, *inputs.shape[1:])
    if inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last):
        ones = ones.contiguous(memory_format=torch.channels_last)  # masks are drawn in the order of memory
    return inputs * forward(ones).narrow(0, rows * shard.start, len(inputs))


def _normalise_whole_batch(layer: _BatchNorm, forward: Forward, group: DistributedGroup, inputs: Tensor) -> Tensor:
    """Normalise (B, C, …) over B, all further dimensions and all workers.

    Outputs, gradients and running statistics equal those of a single worker up to rounding.
    """
    if not (layer.training and group.shard.is_split):
        return forward(inputs)
    mean, variance, count = _reduce_statistics(inputs.detach(), group.world_size)
    if layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        momentum = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        layer.running_mean.lerp_(mean, momentum)
        layer.running_var.lerp_(variance * (count / (count - 1)), momentum)
    output: Tensor = _Normalise.apply(inputs, layer.weight, layer.bias, mean, variance, count, layer.eps)
    return output


def _reduce_statistics(inputs: Tensor, world_size: int) -> tuple[Tensor, Tensor, float]:
    """Return mean (C,) and biased variance (C,) of all workers' inputs (B, C, …), and their number N a channel.

    Shards are combined by their deviations (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983),
    as differences of squares would lose digits.
    """
    inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    variance, mean = torch.var_mean(inputs, _all_but_channels(inputs), correction=0)
    shard = torch.stack([torch.full_like(mean, inputs.numel() // len(mean)), mean, variance]).double()
    shards = [torch.empty_like(shard) for _ in range(world_size)]
    dist.all_gather(shards, shard)
    counts, means, variances = torch.stack(shards, 1)  # (W, C) each
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean.to(inputs.dtype), variance.to(inputs.dtype), float(total[0])


def _all_but_channels(activations: Tensor) -> list[int]:
    return [0, *range(2, activations.dim())]


class _Normalise(torch.autograd.Function):
    """y = γ x̂ + β with x̂ = (x - mean) / sqrt(variance + ε), whose mean and variance depend on all workers' x.

    With the gradient g of y, dx = γ / sqrt(variance + ε) · (g - (Σ g + x̂ Σ g x̂) / N); both sums are over all workers.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return nn.functional.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, variance = ctx.saved_tensors
        gradient = gradients[0].to(mean.dtype)
        normalised = nn.functional.batch_norm(inputs.to(mean.dtype), mean, variance, training=False, eps=ctx.eps)
        dimensions = _all_but_channels(gradient)
        shard = torch.stack([gradient.sum(dimensions), (gradient * normalised).sum(dimensions)])  # (2, C)
        total = shard.clone()
        dist.all_reduce(total)
        scale = (variance + ctx.eps).rsqrt() * (1.0 if weight is None else weight)
        shift, slope, scale = (numbers.view(-1, *[1] * (inputs.dim() - 2)) for numbers in (*(total / ctx.count), scale))
        of_inputs = scale * (gradient - shift - normalised * slope)
        of_bias, of_weight = (None, None) if weight is None else shard
        return of_inputs.to(inputs.dtype), of_weight, of_bias, None, None, None, None

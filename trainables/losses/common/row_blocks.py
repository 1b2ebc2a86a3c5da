"""Means and argmaxes over all pixels of upsampled logits, computed on blocks of rows that fit into a processor's cache.

At 512 × 512 pixels the logits of one face take 20 MB, and a loss written for whole maps keeps a dozen tensors of that
size for the backward pass. Here a block is upsampled, compared and differentiated at once; only the gradient with
respect to the head's logits is kept, so memory does not grow with the size of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.fused import fused_cross_entropy
from trainables.losses.common.logits import as_float32
from trainables.task import IGNORED

BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
"""Logits of a block. On a CPU a few tensors of a megabyte stay in the caches, while the cost of calling an
operator remains small. On a GPU, where each block launches its own kernels, a block is 64 MiB: not measured yet."""

Size = tuple[int, int]
RowSource = Callable[[slice], Any]
"""A function of rows of the image that returns labels or logits there, (rows, …, B, W), or several such tensors."""
PixelValues = Callable[[Tensor, Any], Tensor]
"""A function of logits and of what they are compared with, at some of the pixels: (N, K, …), … → one value a pixel."""


class RowUpsampler:
    """Rows of logits (B, K, h, w) resized to (H, W), bilinear without aligned corners, as `upsample_logits`.

    Blocks are laid out (rows, K, B, W): the resize along the columns is done once, the one along the rows is then one
    matrix product for each block, with the two or three rows of the head that it lies between.
    """

    def __init__(self, logits: Tensor, size: Size):
        logits = as_float32(logits.detach())
        self._height, self._head_height = size[0], logits.shape[2]
        self._rows = _interpolation_matrix(logits.shape[2], size[0], logits)  # (H, h)
        self._columns = _interpolation_matrix(logits.shape[3], size[1], logits)  # (W, w)
        self._widened = logits.permute(2, 1, 0, 3).contiguous() @ self._columns.T  # (h, K, B, W)

    def split_rows(self) -> Iterator[slice]:
        """Yield blocks of rows that together are all rows of the image."""
        step = max(1, BLOCK_ELEMENTS[self._widened.device.type] // self._widened[0].numel())
        for first in range(0, self._height, step):
            yield slice(first, min(first + step, self._height))

    def upsample(self, rows: slice) -> Tensor:
        """Return the logits of these rows: (rows, K, B, W)."""
        head = self._head_rows(rows)
        block = self._rows[rows, head] @ self._widened[head].flatten(1)
        return block.view(-1, *self._widened.shape[1:])

    def zero_gradient(self) -> Tensor:
        """Return the tensor that `accumulate` adds to: (h, K, B, W)."""
        return torch.zeros_like(self._widened)

    def accumulate(self, gradient: Tensor, rows: slice, total: Tensor) -> None:
        """Add to `total` the gradient with respect to these rows, (rows, K, B, W)."""
        head = self._head_rows(rows)
        total[head].flatten(1).addmm_(self._rows[rows, head].T, gradient.flatten(1))

    def reduce_to_head(self, total: Tensor) -> Tensor:
        """Return the gradient with respect to the logits (B, K, h, w) that `total` stands for."""
        return (total @ self._columns).permute(2, 1, 0, 3)

    def _head_rows(self, rows: slice) -> slice:
        """Return the rows of the head that these rows lie between; half a row more at either end does no harm."""
        scale = self._head_height / self._height
        first, last = (math.floor(edge * scale - 0.5) for edge in (rows.start, rows.stop))
        return slice(max(0, first), min(self._head_height, last + 2))


def mean_over_pixels(values: PixelValues, logits: Tensor, other: RowSource, size: Size) -> Tensor:
    """Return the mean of `values(logits, other)` over all pixels, (); only `logits` receive a gradient.

    `logits` (B, K, h, w) are upsampled to `size`. `values` is called on blocks (rows, K, B, W) of them and on what
    `other` returns for the same rows, and returns one value a pixel, in any shape.
    """
    return cast(Tensor, _MeanOverPixels.apply(logits, values, other, size))


class _MeanOverPixels(torch.autograd.Function):
    """Differentiates block by block in the forward pass, so that the backward pass only scales the head's gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: PixelValues, other: RowSource, size: Size) -> Tensor:
        upsampler, is_training = RowUpsampler(logits, size), ctx.needs_input_grad[0]
        gradient = upsampler.zero_gradient() if is_training else None
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for rows in upsampler.split_rows():
            block = upsampler.upsample(rows).requires_grad_(is_training)  # (rows, K, B, W)
            with torch.set_grad_enabled(is_training):
                block_total = values(block, other(rows)).sum()
            if gradient is not None:
                (of_block,) = torch.autograd.grad(block_total, block)
                upsampler.accumulate(of_block, rows, gradient)
            total += block_total.detach()
        pixels = logits.shape[0] * size[0] * size[1]
        if gradient is not None:
            ctx.save_for_backward(upsampler.reduce_to_head(gradient / pixels).to(logits.dtype))
        return (total / pixels).to(as_float32(logits).dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (of_mean,) = ctx.saved_tensors
        return gradient * of_mean, None, None, None


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of upsampled logits (B, K, h, w) with labels (B, H, W) int64, mean over all pixels.

    IGNORED pixels count as 0. They count among all pixels, so that the mean of several workers' shards is that of the
    batch.
    """
    by_row = LabelRows(labels)
    size = labels.shape[1], labels.shape[2]
    return mean_over_pixels(lambda z, others: fused_cross_entropy(z, others[0]) * others[1], logits, by_row, size)


class LabelRows:
    """Labels (B, H, W) int64 by rows of the image, with 0 where they are IGNORED."""

    def __init__(self, labels: Tensor):
        by_row = labels.transpose(0, 1)[:, None]  # (H, 1, B, W)
        self._counted = by_row != IGNORED
        self._labels = by_row.masked_fill(~self._counted, 0)

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return labels (rows, 1, B, W) int64, and True where they count, of the same shape."""
        return self._labels[rows], self._counted[rows]


def argmax_over_classes(logits: Tensor, size: Size) -> Tensor:
    """Return the class of the largest upsampled logit at each pixel: (B, K, h, w) → (B, *size) int64."""
    upsampler = RowUpsampler(logits, size)
    # max, not argmax: along a dimension that is not the last it takes a quarter of the time on a CPU
    blocks = [upsampler.upsample(rows).max(dim=1).indices for rows in upsampler.split_rows()]  # each (rows, B, W)
    return torch.cat(blocks).transpose(0, 1).contiguous()


def _interpolation_matrix(length: int, resized: int, like: Tensor) -> Tensor:
    """Return the (resized, length) matrix of the linear interpolation, in the dtype and on the device of `like`."""
    unit = torch.eye(length, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=resized, mode="linear", align_corners=False)[0].T.contiguous()

"""Shared parts of losses on maps of logits: their settings, and the resolution at which two nets are compared.

Nets return the logits of their heads, which are coarser than the labels by a stride that differs between nets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import as_float32
from trainables.losses.common.row_blocks import LabelRows, PixelValues, RowUpsampler, Size, mean_over_pixels
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, check_choice, check_range

RESOLUTIONS = ("full", "student")


class PixelLoss(Protocol):
    """The settings that all losses on maps of logits have."""

    @property
    def temperature(self) -> FloatOrSchedule: ...

    @property
    def weight(self) -> FloatOrSchedule: ...

    @property
    def resolution(self) -> str:
        """Resolution of the comparison: "full" is that of the labels, "student" that of the student's head."""

    @property
    def task_weight(self) -> FloatOrSchedule: ...


def check_pixel_loss(loss: PixelLoss) -> None:
    """Check these settings; raises InputError for one, or an end of a schedule, out of range."""
    check_range("temperature", loss.temperature, above=0)
    check_range("weight", loss.weight, low=0)
    check_range("task_weight", loss.task_weight, low=0)
    check_choice("resolution", loss.resolution, RESOLUTIONS)


def mean_divergence(
    loss: PixelLoss, divergence: PixelValues, student: Outputs, teacher: Outputs, labels: Tensor
) -> Tensor:
    """Return the mean of `divergence(z_s, z_t)` over all pixels of the resolution where `loss` compares the nets, ().

    Logits (B, K, h, w), of any two h × w, and labels (B, H, W). `divergence` is called on blocks of pixels, twice
    (N, K, …) in float32 or wider, and returns (N, 1, …). Their mean over the classes is 0: softmax ignores it, and
    bilinear upsampling keeps it, so it is subtracted where it costs least, at the heads. Only z_s has a gradient.
    """
    size = find_size(loss, student, labels)
    rows_of_teacher = RowUpsampler(_centre(teacher.prediction.detach()), size).upsample
    return mean_over_pixels(divergence, _centre(student.prediction), rows_of_teacher, size)


def mean_labelled_divergence(
    loss: PixelLoss,
    divergence: Callable[[Tensor, Tensor, Tensor], Tensor],
    student: Outputs,
    teacher: Outputs,
    labels: Tensor,
) -> Tensor:
    """Return the mean of `divergence(z_s, z_t, y)` over all pixels, (): as `mean_divergence`, with labels y.

    y is (N, 1, …) int64. At the student's resolution it is the label at the centre of each of the student's pixels.
    IGNORED pixels count as 0, as in the task loss.
    """
    size = find_size(loss, student, labels)
    rows_of_teacher = RowUpsampler(_centre(teacher.prediction.detach()), size).upsample
    by_row = LabelRows(sample_labels(labels, size))

    def divergence_where_labelled(z_s: Tensor, others: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        z_t, y, is_counted = others
        return divergence(z_s, z_t, y) * is_counted

    return mean_over_pixels(
        divergence_where_labelled,
        _centre(student.prediction),
        lambda rows: (rows_of_teacher(rows), *by_row(rows)),
        size,
    )


def sample_labels(labels: Tensor, size: Size) -> Tensor:
    """Return the labels at the centres of coarser or finer pixels: (B, H, W) → (B, *size)."""
    rows, columns = (
        (2 * torch.arange(count, device=labels.device) + 1) * side // (2 * count)  # ⌊(i + 1/2)·side/count⌋
        for count, side in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def find_size(loss: PixelLoss, student: Outputs, labels: Tensor) -> Size:
    """Return the height and width at which `loss` compares the nets."""
    reference = labels if loss.resolution == "full" else student.prediction
    return reference.shape[-2], reference.shape[-1]


def _centre(logits: Tensor) -> Tensor:
    logits = as_float32(logits)
    return logits - logits.mean(dim=1, keepdim=True)


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits (B, K, h, w) → (B, K, *size), float32 or wider: bilinear, as torchvision's segmentation nets.

    Logits finer than `size` are sampled bilinearly, too, without averaging over the pixels in between.
    """
    # the layout that nets return, for stored outputs, too: live and stored teachers agree to the bit, in half the time
    logits = as_float32(logits).contiguous(memory_format=torch.channels_last)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

"""Shared parts of losses on maps of logits: their settings, and the resolution at which two nets are compared.

Nets return the logits of their heads, which are coarser than the labels by a stride that differs between nets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import as_float32, autocast_disabled
from trainables.losses.common.row_blocks import RowUpsampler, Size, mean_over_pixels
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_choice, check_range, value_at

RESOLUTIONS = ("full", "student")


class PixelLoss(ABC):
    """Base of the losses on maps of logits: the settings that all of them have, with defaults of their own.

    Raises InputError for a setting, or an end of a schedule, out of range.
    """

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True

    temperature: FloatOrSchedule
    weight: FloatOrSchedule
    resolution: str
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_choice("resolution", self.resolution, RESOLUTIONS)

    @abstractmethod
    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K, h, w), of any two resolutions, and labels (B, H, W) int64."""


class PixelDivergence(PixelLoss):
    """Base of the losses weight · mean over all pixels of `compare`."""

    @abstractmethod
    def compare(self, z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
        """Return the loss of each pixel, given both nets' logits: (N, K, …) twice → (N, 1, …).

        Logits are in float32 or wider, and of mean 0 over the classes. Only z_s has a gradient.
        """

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        temperature, size = value_at(self.temperature, progress), find_size(self, student, targets)
        with autocast_disabled(student):
            rows_of_teacher = RowUpsampler(centre(teacher.prediction.detach()), size).upsample
            compare = partial(self.compare, temperature=temperature)
            mean = mean_over_pixels(compare, centre(student.prediction), rows_of_teacher, size)
            return value_at(self.weight, progress) * mean


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


def centre(logits: Tensor) -> Tensor:
    """Subtract the mean over the classes, which softmax ignores and bilinear upsampling keeps: least work at the heads.

    Logits (B, K, h, w), float32 or wider.
    """
    logits = as_float32(logits)
    return logits - logits.mean(dim=1, keepdim=True)


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits (B, K, h, w) → (B, K, *size), float32 or wider: bilinear, as torchvision's segmentation nets.

    Logits finer than `size` are sampled bilinearly, too, without averaging over the pixels in between.
    """
    # the layout that nets return, for stored outputs, too: live and stored teachers agree to the bit, in half the time
    logits = as_float32(logits).contiguous(memory_format=torch.channels_last)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

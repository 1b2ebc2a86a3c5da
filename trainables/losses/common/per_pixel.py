"""Shared parts of losses on maps of logits: their settings, and the resolution at which two nets are compared.

Nets return the logits of their heads, which are coarser than the labels by a stride that differs between nets.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.logits import as_float32
from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, check_range, is_unresolved

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
    if not is_unresolved(loss.resolution) and loss.resolution not in RESOLUTIONS:
        raise InputError(f"resolution is {loss.resolution!r}; allowed are {', '.join(map(repr, RESOLUTIONS))}")


def match_resolution(loss: PixelLoss, student: Outputs, teacher: Outputs, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return both nets' logits at the resolution where `loss` compares them.

    Logits (B, K, h, w), of any two h × w, and labels (B, H, W) → (B, K, H, W) twice, or at resolution "student" twice
    the student's (B, K, h, w); float32 or wider, the teacher's detached.
    """
    reference = labels if loss.resolution == "full" else student.prediction
    size = reference.shape[-2], reference.shape[-1]
    return upsample_logits(student.prediction, size), upsample_logits(teacher.prediction.detach(), size)


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits (B, K, h, w) → (B, K, *size), float32 or wider: bilinear, as torchvision's segmentation nets.

    Logits finer than `size` are sampled bilinearly, too, without averaging over the pixels in between.
    """
    # the layout that nets return, for stored outputs, too: live and stored teachers agree to the bit, in half the time
    logits = as_float32(logits).contiguous(memory_format=torch.channels_last)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

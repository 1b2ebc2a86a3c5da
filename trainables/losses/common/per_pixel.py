"""What all losses on maps of logits share: their settings, and the one resolution at which two nets are compared.

Nets return the logits of their heads, which are coarser than the labels, each by a stride of its own.
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
    """The settings that every loss on maps of logits has, whatever it computes."""

    @property
    def temperature(self) -> FloatOrSchedule: ...

    @property
    def weight(self) -> FloatOrSchedule: ...

    @property
    def resolution(self) -> str:
        """Where the nets are compared: "full" at the labels' pixels, "student" at those of the student's head."""

    @property
    def task_weight(self) -> FloatOrSchedule: ...


def check_pixel_loss(loss: PixelLoss) -> None:
    """Raises InputError for one of these settings, or an end of a schedule, out of range."""
    check_range("temperature", loss.temperature, above=0)
    check_range("weight", loss.weight, low=0)
    check_range("task_weight", loss.task_weight, low=0)
    if not is_unresolved(loss.resolution) and loss.resolution not in RESOLUTIONS:
        raise InputError(f"resolution is {loss.resolution!r}; allowed are {', '.join(map(repr, RESOLUTIONS))}")


def match_resolution(loss: PixelLoss, student: Outputs, teacher: Outputs, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both nets' logits where `loss` compares them, at the labels' (B, H, W) or at the student's own resolution.

    Logits (B, K, h, w), of any two h × w, become float32 or wider; the teacher's carry no gradient.
    """
    map_of_size = labels if loss.resolution == "full" else student.prediction
    size = map_of_size.shape[-2], map_of_size.shape[-1]
    return upsample_logits(student.prediction, size), upsample_logits(teacher.prediction.detach(), size)


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, K, h, w) → (B, K, *size), float32 or wider: bilinear, as torchvision's segmentation nets end.

    What is finer than `size` is sampled bilinearly too, without averaging over what lies between.
    """
    # in the layout of what nets return, and stored outputs too: the same bits live and stored, and half the time
    logits = as_float32(logits).contiguous(memory_format=torch.channels_last)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

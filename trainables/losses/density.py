"""Density distillation: the student learns a blend of the true density map and the teacher's, by a weight alpha.

Also how maps of different resolutions are compared, for this loss and for the task loss alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, Progress, Schedule, check_range, value_at


@dataclass(frozen=True)
class DensityDistillation:
    """alpha·MSE(student, teacher); the training loop adds (1 − alpha)·task_loss, the MSE to the true map.

    Up to a constant this is the MSE to one blended map, (1 − alpha)·truth + alpha·teacher: alpha moves the target and
    nothing else. The mean is over all pixels of the batch, at the student's resolution.
    Raises InputError for an alpha, or an end of its schedule, outside [0, 1].
    Source: P4, section on crowd counting; the paper takes 0.1, 0.3, 0.5 and 0.7.
    """

    alpha: FloatOrSchedule = 0.5

    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, low=0, high=1)

    @property
    def task_weight(self) -> FloatOrSchedule:
        """1 − alpha, which moves as alpha does."""
        return 1 - self.alpha if isinstance(self.alpha, int | float) else Complement(self.alpha)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        return value_at(self.alpha, progress) * density_mse(student.prediction, teacher.prediction.detach())


@dataclass(frozen=True)
class Complement:
    """What a schedule of shares leaves of 1."""

    share: Schedule

    def value_at(self, progress: Progress) -> float:
        return 1 - self.share.value_at(progress)

    def bounds(self) -> tuple[float, float]:
        low, high = self.share.bounds()
        return 1 - high, 1 - low


def density_mse(density: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two density maps at the resolution of `density`: (B, 1, h, w), (B, 1, H, W) → ()."""
    return F.mse_loss(density.float(), sum_pool(target.float(), density))


def sum_pool(density: Tensor, like: Tensor) -> Tensor:
    """A density map at the coarser resolution of `like`: each pixel the sum of those it covers, so that counts stay.

    Raises ValueError unless H and W are the same whole multiple of those of `like`.
    """
    factor = density.shape[-1] // like.shape[-1]
    if (like.shape[-2] * factor, like.shape[-1] * factor) != tuple(density.shape[-2:]):
        raise ValueError(f"a map of {tuple(density.shape[-2:])} cannot be summed to {tuple(like.shape[-2:])} pixels")
    return F.avg_pool2d(density, factor) * factor**2 if factor > 1 else density

"""Density distillation: the student learns a blend of the true density map and the teacher's.

`density_mse`, which compares maps of different resolutions, is the task loss of crowd counting, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, Schedule, check_range, value_at


@dataclass(frozen=True)
class DensityDistillation:
    """alpha·MSE(student, teacher); the training loop adds (1 − alpha)·task_loss, the MSE to the true map.

    Up to a constant the sum is the MSE to one blended map, (1 − alpha)·truth + alpha·teacher: alpha changes the target
    only. The mean is over all pixels of the batch, at the student's resolution.
    Raises InputError for an alpha, or an end of its schedule, outside [0, 1].
    Source: P4, section on crowd counting; the paper takes 0.1, 0.3, 0.5 and 0.7.
    """

    alpha: FloatOrSchedule = 0.5

    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, low=0, high=1)

    @property
    def task_weight(self) -> FloatOrSchedule:
        """1 − alpha; a schedule if alpha is one."""
        return 1 - self.alpha if isinstance(self.alpha, int | float) else Complement(self.alpha)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given density maps (B, 1, h, w) of the student and (B, 1, H, W) of the teacher."""
        return value_at(self.alpha, progress) * density_mse(student.prediction, teacher.prediction.detach())


@dataclass(frozen=True)
class Complement:
    """The schedule 1 − share."""

    share: Schedule

    def value_at(self, progress: Progress) -> float:
        return 1 - self.share.value_at(progress)

    def bounds(self) -> tuple[float, float]:
        low, high = self.share.bounds()
        return 1 - high, 1 - low


def density_mse(density: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference at the resolution of `density`: (B, 1, h, w), (B, 1, H, W) → ().

    Raises ValueError unless H and W are the same whole multiple of h and w.
    """
    return F.mse_loss(density.float(), sum_pool(target.float(), density))


def sum_pool(density: Tensor, like: Tensor) -> Tensor:
    """Pool a density map to the resolution of `like` by sums, which keep the count: (B, 1, H, W) → (B, 1, h, w).

    Raises ValueError unless H and W are the same whole multiple of h and w.
    """
    factor = density.shape[-1] // like.shape[-1]
    if (like.shape[-2] * factor, like.shape[-1] * factor) != tuple(density.shape[-2:]):
        raise ValueError(f"a map of {tuple(density.shape[-2:])} cannot be summed to {tuple(like.shape[-2:])} pixels")
    return F.avg_pool2d(density, factor) * factor**2 if factor > 1 else density

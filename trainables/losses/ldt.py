"""LDT: at each pixel the student's logits take the spread of the teacher's before the two are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, check_type
from trainables.losses.common.per_pixel import check_pixel_loss, match_resolution
from trainables.losses.common.standardisation import std_over_classes, standardise
from trainables.losses.kd import kd
from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, Progress, value_at


@dataclass(frozen=True)
class LDT:
    """`PixelKD` with the student's logits as z_s' = (z_s − μ_s)/σ_s · σ_t, the teacher's as they are.

    μ, σ: mean and standard deviation over the classes of each pixel, σ_t a constant. Softmax does not see μ_t, whether
    added or not, nor does σ_t/σ_s depend on whether both are unbiased. This is `PixelKD` whose student has at each
    pixel the temperature T·σ_s/σ_t: the size of its logits is left to the task loss.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P0, equation 6, which does not say where T stands; read here as dividing both sides.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    detach_statistics: bool = False
    """Whether μ_s and σ_s are constants too; the paper does not say, the code it builds on lets gradients through."""
    resolution: str = "full"
    """Where the nets are compared: at the labels' resolution, or with "student" at that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_pixel_loss(self)
        check_type("detach_statistics", self.detach_statistics, bool, "True, False, or choice(False, True)")

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        with autocast_disabled(student):
            z_s, z_t = match_resolution(self, student, teacher, targets)
            transformed = standardise(z_s, detached=self.detach_statistics) * std_over_classes(z_t)
            return value_at(self.weight, progress) * kd(transformed, z_t, value_at(self.temperature, progress)).mean()

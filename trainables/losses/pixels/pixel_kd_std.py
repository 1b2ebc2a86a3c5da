"""KD-STD for segmentation: at each pixel the student matches the teacher by standardised logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainables.losses.common.fused import fused_kd
from trainables.losses.common.logits import autocast_disabled
from trainables.losses.common.per_pixel import check_pixel_loss, mean_divergence
from trainables.losses.common.pixel_transform import divide_by_std
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_type, value_at


@dataclass(frozen=True)
class PixelKDStd:
    """`PixelKD` of logits standardised over the classes of each pixel: Z = (z − μ)/(σ·T) on both sides.

    However confident the teacher is, the largest of 19 probabilities is at most 0.81 at T = 1 and 0.33 at T = 2.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P0, equation 5; Sun et al. 2024, whose code has the unbiased σ and, as here, gradients through μ and σ.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    unbiased: bool = True
    """Whether σ² divides by K − 1 instead of K, which equals √(K/(K − 1)) times the temperature."""
    resolution: str = "full"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_pixel_loss(self)
        check_type("unbiased", self.unbiased, bool, "True, False, or choice(False, True)")

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K, h, w), of any two resolutions, and labels (B, H, W) int64."""
        temperature = value_at(self.temperature, progress)

        def divergence(z_s: Tensor, z_t: Tensor) -> Tensor:  # (N, K, …) twice, of μ = 0 → (N, 1, …)
            standard_s, standard_t = (divide_by_std(z, self.unbiased) for z in (z_s, z_t))
            return fused_kd(standard_s, standard_t, temperature)

        with autocast_disabled(student):
            return value_at(self.weight, progress) * mean_divergence(self, divergence, student, teacher, targets)

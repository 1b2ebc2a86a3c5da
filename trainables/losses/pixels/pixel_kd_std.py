"""KD-STD for segmentation: at each pixel the student matches the teacher by standardised logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainables.losses.common.fused import fused_kd
from trainables.losses.common.per_pixel import PixelDivergence
from trainables.losses.common.pixel_transform import divide_by_std
from trainables.training.settings import FloatOrSchedule, check_type


@dataclass(frozen=True)
class PixelKDStd(PixelDivergence):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type("unbiased", self.unbiased, bool, "True, False, or choice(False, True)")

    def compare(self, z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
        return fused_kd(divide_by_std(z_s, self.unbiased), divide_by_std(z_t, self.unbiased), temperature)

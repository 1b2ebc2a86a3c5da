"""KD for segmentation: at each pixel the student matches the teacher's tempered class probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from study.identity import IF_SET
from trainables.losses.common.fused import fused_kd
from trainables.losses.common.per_pixel import PixelDivergence
from trainables.losses.common.pixel_transform import TRANSFORMS, transform_logits
from trainables.training.settings import FloatOrSchedule, check_choice


@dataclass(frozen=True)
class PixelKD(PixelDivergence):
    """weight · mean over all pixels of T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)), softmax over the classes.

    z: logits (B, K, h, w) of teacher and student, of any two resolutions; T: temperature.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Hinton et al. 2015, section 2, per pixel; P0, equations 1 and 2, which give neither T nor the weight: the
    defaults are 1.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    resolution: str = "full"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0
    transform: str | None = field(default=None, metadata=IF_SET)
    """Transformation of the logits before the comparison, "ldt" or "standardise": see common/pixel_transform.py."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("transform", self.transform, TRANSFORMS)

    def compare(self, z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
        return fused_kd(*transform_logits(self.transform, z_s, z_t), temperature)

"""CWD for segmentation: each class's map is large at the places where the teacher's is."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, kl_divergence_from_logs
from trainables.losses.common.per_pixel import PixelLoss, find_size, upsample_logits
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, value_at


@dataclass(frozen=True)
class CWD(PixelLoss):
    """weight · mean over images and classes of T²·KL(φ_t ‖ φ_s), φ = softmax(z/T) over all pixels of a class's map.

    z: logits (B, K, h, w) of teacher and student, of any two resolutions. A constant added to a class's map changes
    nothing, so that the loss compares where a class is, and not which class a pixel has. Memory grows with the
    resolution: a dozen maps of all logits at "full".
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Shu et al. 2021, Channel-wise Knowledge Distillation for Dense Prediction, equation 7, on logits; T = 4
    and weight 3 are the authors'.
    """

    temperature: FloatOrSchedule = 4.0
    weight: FloatOrSchedule = 3.0
    resolution: str = "student"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        temperature, size = value_at(self.temperature, progress), find_size(self, student, targets)
        with autocast_disabled(student):
            log_s, log_t = (
                F.log_softmax(upsample_logits(z, size).flatten(0, 1).flatten(1) / temperature, dim=1)  # (B·K, H·W)
                for z in (student.prediction, teacher.prediction.detach())
            )
            divergence = kl_divergence_from_logs(log_s, log_t).mean()
            return value_at(self.weight, progress) * temperature**2 * divergence

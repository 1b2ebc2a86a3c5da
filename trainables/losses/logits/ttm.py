"""TTM and WTTM: the student's untempered probabilities match the teacher's tempered ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, get_logits, kl_divergence_from_logs
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at


@dataclass(frozen=True)
class TTM:
    """weight · mean over the batch of KL(softmax(z_t/T) ‖ softmax(z_s)); with `weighted`, of U·KL, which is WTTM.

    z: logits (B, K). U = Σ_k p_k^(1/T), p the teacher's probabilities: 1 for a certain teacher, up to K^(1 − 1/T) for
    one that knows nothing. Without a temperature of the student there is no factor T².
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Zheng & Yang 2024, Knowledge Distillation Based on Transformed Teacher Matching. The example of its code,
    TTM from VGG-13 to VGG-8, has T = 10 and weight 45; WTTM's weight is smaller, as U is at least 1.
    """

    temperature: FloatOrSchedule = 10.0
    weight: FloatOrSchedule = 45.0
    weighted: bool = False
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_type("weighted", self.weighted, bool, "True, False, or choice(False, True)")

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K)."""
        exponent = 1 / value_at(self.temperature, progress)
        with autocast_disabled(student):
            z_s, z_t = get_logits(student, teacher)
            log_power = exponent * F.log_softmax(z_t, dim=1)  # (B, K), log p^(1/T)
            log_u = log_power.logsumexp(dim=1, keepdim=True)  # (B, 1)
            divergence = kl_divergence_from_logs(F.log_softmax(z_s, dim=1), log_power - log_u)
            of_sample = log_u.exp() * divergence if self.weighted else divergence
            return value_at(self.weight, progress) * of_sample.mean()

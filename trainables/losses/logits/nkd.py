"""NKD: cross-entropy with the teacher on the target class, and among the non-target classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, gather_kept_logits
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class NKD:
    """weight · mean over the batch of −p_t,y·log p_s,y − gamma·T²·Σ_{i≠y} q_t,i·log q_s,i.

    p: softmax of the logits (B, K), without temperature; y: the target; q: softmax at temperature T over the non-target
    classes. Of two classes the second sum is 0. These are cross-entropies, so that a student equal to the teacher has a
    loss above 0, and a gradient towards the target.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Yang et al. 2023, From Knowledge Distillation to Self-Knowledge Distillation; T = 1 and gamma = 1.5 are the
    defaults of its code.
    """

    temperature: FloatOrSchedule = 1.0
    gamma: FloatOrSchedule = 1.5
    weight: FloatOrSchedule = 1.0
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        for name in ("gamma", "weight", "task_weight"):
            check_range(name, getattr(self, name), low=0)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K) and targets (B,) int64."""
        temperature = value_at(self.temperature, progress)
        with autocast_disabled(student):
            z_s, z_t = gather_kept_logits(student, teacher, targets, share=0.0)  # the target in column 0
            target = -F.softmax(z_t, dim=1)[:, 0] * F.log_softmax(z_s, dim=1)[:, 0]  # (B,)
            q_t = F.softmax(z_t[:, 1:] / temperature, dim=1)  # (B, K − 1)
            others = -(q_t * F.log_softmax(z_s[:, 1:] / temperature, dim=1)).sum(dim=1)  # (B,)
            both = target + value_at(self.gamma, progress) * temperature**2 * others
            return value_at(self.weight, progress) * both.mean()

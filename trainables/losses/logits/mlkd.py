"""MLKD: the student matches the teacher's probabilities, their products among samples and those among classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, get_logits
from trainables.losses.logits.kd import kd
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""The temperatures at which nets are compared, as shares of the setting: 2, 3, 4, 5 and 6 of the authors at 4."""


@dataclass(frozen=True)
class MLKD:
    """weight · Σ over T of (instance + batch_weight·batch + class_weight·classes), T from half to 1.5 · temperature.

    Of the probabilities P = softmax(z/T), (B, K): instance = mean over the batch of T²·KL(P_t ‖ P_s),
    batch = ‖P_s·P_sᵀ − P_t·P_tᵀ‖²/B, classes = ‖P_sᵀ·P_s − P_tᵀ·P_t‖²/K, ‖·‖ the Frobenius norm.
    Left out of the published method: the second, strongly augmented view of each image, and the masks that keep the
    half of the samples and classes of which the teacher is less certain.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Jin et al. 2023, Multi-Level Logit Distillation, with the temperatures and weights of its code on CIFAR-100.
    """

    temperature: FloatOrSchedule = 4.0
    """The middle one of five temperatures."""
    weight: FloatOrSchedule = 0.9
    batch_weight: FloatOrSchedule = 1.0
    class_weight: FloatOrSchedule = 1.0
    task_weight: FloatOrSchedule = 0.1

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        for name in ("weight", "batch_weight", "class_weight", "task_weight"):
            check_range(name, getattr(self, name), low=0)

    def single_worker_reason(self) -> str:
        return "it compares all pairs of samples of a whole batch, and each worker has only its shard"

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K)."""
        of_batch, of_classes = value_at(self.batch_weight, progress), value_at(self.class_weight, progress)
        with autocast_disabled(student):
            z_s, z_t = get_logits(student, teacher)
            total = z_s.new_zeros(())
            for factor in FACTORS:
                temperature = factor * value_at(self.temperature, progress)
                p_s, p_t = (F.softmax(z / temperature, dim=1) for z in (z_s, z_t))  # (B, K)
                batch = (p_s @ p_s.T - p_t @ p_t.T).square().sum() / len(p_s)  # of (B, B)
                classes = (p_s.T @ p_s - p_t.T @ p_t).square().sum() / p_s.shape[1]  # of (K, K)
                total = total + kd(z_s, z_t, temperature).mean() + of_batch * batch + of_classes * classes
            return value_at(self.weight, progress) * total

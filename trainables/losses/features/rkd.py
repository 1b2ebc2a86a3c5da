"""RKD: distances and angles among the samples of a batch are those among the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.feature_maps import embed_features
from trainables.losses.common.logits import autocast_disabled
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at

EPSILON = 1e-12
"""Smallest squared distance: that of two equal samples has no gradient. The value of mdistiller."""


@dataclass(frozen=True)
class RKD:
    """distance · mean over pairs of h(d_s, d_t) + angle · mean over triples of h(cos_s, cos_t), h Huber's loss, δ = 1.

    Of the last features x, (B, D), maps averaged over their pixels: d_ij = ‖x_i − x_j‖ divided by its mean over all
    i ≠ j; cos_ijk the cosine of the angle at x_i between x_j and x_k. Nets may differ in D. A batch of one has loss 0.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Park et al. 2019, Relational Knowledge Distillation; weights of mdistiller's tables on CIFAR-100.
    """

    distance: FloatOrSchedule = 25.0
    angle: FloatOrSchedule = 50.0
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("distance", "angle", "task_weight"):
            check_range(name, getattr(self, name), low=0)

    def single_worker_reason(self) -> str:
        return "it compares all samples of a whole batch with each other, and each worker has only its shard"

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given features (B, D) or (B, C, H, W). Raises InputError for nets without features."""
        with autocast_disabled(student):
            x_s, x_t = embed_features("RKD", student), embed_features("RKD", teacher).detach()
            distance = F.smooth_l1_loss(_distances(x_s), _distances(x_t))
            angle = F.smooth_l1_loss(_cosines(x_s), _cosines(x_t))
            return value_at(self.distance, progress) * distance + value_at(self.angle, progress) * angle


def _distances(x: Tensor) -> Tensor:
    """Return the distances of all pairs, divided by their mean over different samples: (B, D) → (B, B)."""
    squared = (x[:, None] - x[None]).square().sum(dim=2).clamp(min=EPSILON)
    distances = squared.sqrt() * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))
    mean = distances.sum() / max(1, len(x) * (len(x) - 1))
    return distances / mean.clamp(min=EPSILON)


def _cosines(x: Tensor) -> Tensor:
    """Return the cosine of each angle at a sample between two others: (B, D) → (B, B, B)."""
    directions = F.normalize(x[None] - x[:, None], dim=2, eps=EPSILON)  # (B, B, D), from i to j
    return directions @ directions.transpose(1, 2)

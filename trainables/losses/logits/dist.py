"""DIST: the student matches the relations among the teacher's probabilities instead of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled, get_logits
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at

EPSILON = 1e-8
"""Added to the product of the norms, so that a constant row has correlation 0 instead of NaN; the value of the authors
of DIST."""


@dataclass(frozen=True)
class DIST:
    """weight · T²·(beta·inter + gamma·intra) of the probabilities Y = softmax(z/T), (B, K).

    inter = 1 − mean over samples of ρ(Y_s[i], Y_t[i]), intra = 1 − mean over classes of ρ(Y_s[:, j], Y_t[:, j]), ρ
    Pearson's correlation. Of two classes `inter` compares their order alone; in a batch of one sample `intra` is 1.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Huang et al. 2022, Knowledge Distillation from A Stronger Teacher; T² is the factor of code that reproduces
    it on CIFAR-100, with T = 4 and beta = gamma = 1.
    """

    temperature: FloatOrSchedule = 4.0
    weight: FloatOrSchedule = 1.0
    beta: FloatOrSchedule = 1.0
    gamma: FloatOrSchedule = 1.0
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        for name in ("weight", "beta", "gamma", "task_weight"):
            check_range(name, getattr(self, name), low=0)

    def single_worker_reason(self) -> str:
        return "it compares each class over the samples of a whole batch, and each worker has only its shard"

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K)."""
        temperature = value_at(self.temperature, progress)
        with autocast_disabled(student):
            y_s, y_t = (F.softmax(z / temperature, dim=1) for z in get_logits(student, teacher))
            inter, intra = (1 - pearson(y_s, y_t, dim=dim).mean() for dim in (1, 0))
            relations = value_at(self.beta, progress) * inter + value_at(self.gamma, progress) * intra
            return value_at(self.weight, progress) * temperature**2 * relations


def pearson(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """Return Pearson's correlation of two tensors of one shape along a dimension, which the result lacks."""
    one, other = (values - values.mean(dim=dim, keepdim=True) for values in (one, other))
    norms = [torch.linalg.vector_norm(values, dim=dim) for values in (one, other)]
    correlation: Tensor = (one * other).sum(dim=dim) / (norms[0] * norms[1] + EPSILON)
    return correlation

"""DIST for segmentation: relations among the probabilities of a pixel, and among the pixels of a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled
from trainables.losses.common.per_pixel import PixelLoss, find_size, upsample_logits
from trainables.losses.logits.dist import pearson
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class PixelDIST(PixelLoss):
    """weight · T²·(beta·inter + gamma·intra) of the probabilities Y = softmax(z/T), each pixel a sample of `DIST`.

    inter = 1 − mean over pixels of ρ(Y_s, Y_t) over the classes, intra = 1 − mean over classes of ρ(Y_s, Y_t) over all
    pixels of the batch; ρ is Pearson's correlation. Logits are (B, K, h, w), of any two resolutions. Memory grows with
    the resolution: a dozen maps of all logits at "full".
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Huang et al. 2022, Knowledge Distillation from A Stronger Teacher, section 4.3, with T = beta = gamma = 1.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    beta: FloatOrSchedule = 1.0
    gamma: FloatOrSchedule = 1.0
    resolution: str = "student"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("beta", self.beta, low=0)
        check_range("gamma", self.gamma, low=0)

    def single_worker_reason(self) -> str:
        return "it compares each class over the pixels of a whole batch, and each worker has only its shard"

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        temperature, size = value_at(self.temperature, progress), find_size(self, student, targets)
        with autocast_disabled(student):
            y_s, y_t = (
                F.softmax(upsample_logits(z, size) / temperature, dim=1).transpose(0, 1).flatten(1)  # (K, B·H·W)
                for z in (student.prediction, teacher.prediction.detach())
            )
            inter, intra = (1 - pearson(y_s, y_t, dim=dim).mean() for dim in (0, 1))
            relations = value_at(self.beta, progress) * inter + value_at(self.gamma, progress) * intra
            return value_at(self.weight, progress) * temperature**2 * relations

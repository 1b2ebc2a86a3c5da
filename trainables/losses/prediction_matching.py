"""Prediction matching, the plain form of distillation for numbers: the student's outputs approach the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.logits import as_float32, autocast_disabled
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_choice, check_range, value_at

NORMS = {"mse": F.mse_loss, "mae": F.l1_loss}


@dataclass(frozen=True)
class PredictionMatching:
    """weight · mean (y_s − y_t)² over the predictions (B, …) of student and teacher, or mean |y_s − y_t|.

    Of logits it is the regression of Ba & Caruana 2014, equation 1.
    Raises InputError for a setting, or an end of a schedule, out of range.
    """

    weight: FloatOrSchedule = 1.0
    norm: str = "mse"
    """"mse" or "mae"."""
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_choice("norm", self.norm, NORMS)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given predictions of one shape. Raises InputError for predictions of two shapes."""
        y_s, y_t = student.prediction, teacher.prediction.detach()
        if y_s.shape != y_t.shape:
            raise InputError(
                f"PredictionMatching of a student's {tuple(y_s.shape)} and a teacher's {tuple(y_t.shape)} predictions; "
                "allowed are predictions of one shape"
            )
        with autocast_disabled(student):
            return value_at(self.weight, progress) * NORMS[self.norm](as_float32(y_s), as_float32(y_t))

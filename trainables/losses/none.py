"""No distillation: the student learns from the task loss alone. The baseline of every gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.task import Outputs
from trainables.training.settings import Progress


@dataclass(frozen=True)
class NoDistillation:
    """The constant 0, added to the task loss; the teacher's outputs are ignored and may be None."""

    needs_teacher: ClassVar[bool] = False
    capturable: ClassVar[bool] = True
    task_weight: ClassVar[float] = 1.0

    def __call__(self, student: Outputs, teacher: Outputs | None, targets: Any, progress: Progress) -> Tensor:
        """Return 0, ()."""
        return torch.zeros((), device=student.prediction.device)

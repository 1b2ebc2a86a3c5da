"""CTKD: KD at a temperature that is learned against the student, which makes its lesson ever harder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.losses.common.logits import autocast_disabled, get_logits
from trainables.losses.logits.kd import kd
from trainables.losses.state import LossState, StatefulLoss
from trainables.task import Outputs
from trainables.training.recipe import Sgd, set_learning_rate
from trainables.training.schedules import MultiStep
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at


@dataclass(frozen=True)
class CTKD(StatefulLoss):
    """weight · mean over the batch of T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)), T = lowest + span·sigmoid(θ) learned.

    θ, one number that starts at 1, climbs the loss that the student descends: its gradient is multiplied by −λ, and λ
    grows from 0 to 1 as half a cosine over the first `ramp` of the run. Only the global temperature of the paper is
    here, not the one for each sample. Logits are (B, K).
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Li et al. 2023, Curriculum Temperature for Knowledge Distillation; as in its code T lies between
    1 and 21, λ grows over 10 of 240 epochs, and θ has the student's optimizer. `learning_rate` does not follow that of
    the recipe: set it alike.
    """

    weight: FloatOrSchedule = 0.9
    lowest: FloatOrSchedule = 1.0
    span: FloatOrSchedule = 20.0
    ramp: FloatOrSchedule = 10 / 240
    """Share of the run in which λ grows."""
    learning_rate: FloatOrSchedule = field(default_factory=lambda: MultiStep(0.05))
    optimizer: Sgd = field(default_factory=Sgd)
    task_weight: FloatOrSchedule = 0.1

    compares_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("weight", "span", "learning_rate", "task_weight"):
            check_range(name, getattr(self, name), low=0)
        check_range("lowest", self.lowest, above=0)
        check_range("ramp", self.ramp, low=0, high=1)
        check_type("optimizer", self.optimizer, Sgd, "Sgd(…)")

    def single_worker_reason(self) -> str:
        return "its temperature learns from a whole batch, and each worker has only its shard"

    def new_state(self, device: str) -> CTKDState:
        return CTKDState(self, device)


class CTKDState(LossState):
    """Per-training state: θ and its optimizer."""

    def __init__(self, loss: CTKD, device: str) -> None:
        self.loss = loss
        self.theta = nn.Parameter(torch.ones(1, 1, device=device))
        self.optimizer = loss.optimizer.build([self.theta])

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K)."""
        lowest, span = value_at(self.loss.lowest, progress), value_at(self.loss.span, progress)
        with autocast_disabled(student):
            z_s, z_t = get_logits(student, teacher)
            temperature = lowest + span * torch.sigmoid(self.theta)  # (1, 1)
            divergence = kd(z_s, z_t, temperature.to(z_s.dtype))
            return value_at(self.loss.weight, progress) * divergence.mean()

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """Take a step of θ up the loss, with the gradient from the student's backward pass."""
        if self.theta.grad is None:
            return
        self.theta.grad.mul_(-self._reversal(progress))
        set_learning_rate(self.optimizer, value_at(self.loss.learning_rate, progress))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _reversal(self, progress: Progress) -> float:
        """Return λ; a ramp of at most one epoch, including 0, is complete in the first."""
        epochs = value_at(self.loss.ramp, progress) * progress.epochs
        share = min(progress.epoch / epochs, 1.0) if epochs > 1 else 1.0
        return (1 - math.cos(math.pi * share)) / 2

    def state_dict(self) -> dict[str, Any]:
        return {"theta": self.theta.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.theta.copy_(state["theta"])
        self.optimizer.load_state_dict(state["optimizer"])

"""Per-training state of a loss: most are stateless; an adversarial loss owns a discriminator and its optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from study.task import StatefulMethod
from trainables.task import DistillationLoss, Outputs
from trainables.training.schedules import Progress


class LossState(Protocol):
    """The loss as the training loop calls it."""

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss of a batch, ()."""

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """Train the loss's own parts for one step on the same outputs, after the student's step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class StatelessLoss:
    """Adapter of a loss without parts of its own."""

    loss: DistillationLoss

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        return self.loss(student, teacher, targets, progress)

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def make_loss_state(loss: DistillationLoss, device: str) -> LossState:
    """Return the state of `loss` for one training; the caller has seeded the generator of initial weights."""
    state: LossState = loss.new_state(device) if isinstance(loss, StatefulMethod) else StatelessLoss(loss)
    return state

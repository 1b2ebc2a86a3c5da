"""A loss in one training: most hold nothing, an adversarial one a discriminator that learns beside the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from trainables.task import DistillationLoss, Outputs
from trainables.training.schedules import Progress


class LossState(Protocol):
    """What the training loop calls."""

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor: ...

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """One step of the loss's own parts, after the student's, on the same outputs."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class StatefulLoss(Protocol):
    """A loss with parts of its own that learn beside the student."""

    def new_state(self, device: str) -> LossState:
        """For one training. Called where the random generator is seeded, so that initial weights follow from it."""


@dataclass(frozen=True)
class StatelessLoss:
    """A loss without parts of its own, running."""

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
    """`loss`, ready for one training."""
    return loss.new_state(device) if isinstance(loss, StatefulLoss) else StatelessLoss(loss)

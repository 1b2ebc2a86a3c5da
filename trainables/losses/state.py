"""Per-training state of a loss: most are stateless; an adversarial loss owns a discriminator and its optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from study.task import StatefulMethod
from trainables.task import DistillationLoss, Outputs
from trainables.training.nets import to_device
from trainables.training.recipe import Sgd, set_learning_rate
from trainables.training.settings import FloatOrSchedule, Progress, value_at

Part = TypeVar("Part", bound=nn.Module)


class Checkpointed:
    """An object whose parts, modules and optimizers among them, are saved in checkpoints."""

    parts: ClassVar[tuple[str, ...]] = ()
    """The names of its attributes that have a state_dict."""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])


class LossState(Checkpointed, ABC):
    """The loss as the training loop calls it."""

    @abstractmethod
    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss of a batch, ()."""

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """Train the loss's own parts for one step on the same outputs, after the student's step."""


class StatefulLoss(ABC):
    """Base of the losses with parts that learn."""

    needs_teacher: ClassVar[bool] = True

    @abstractmethod
    def new_state(self, device: str) -> LossState:
        """Return the state for one training; the caller has seeded the generator of initial weights."""

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss () of parts that have not learned, the same at every call, for checks before a study."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = self.new_state(student.prediction.device.type)
        return state(student, teacher, targets, progress)


class StatelessLoss(LossState):
    """Adapter of a loss without parts of its own."""

    def __init__(self, loss: DistillationLoss) -> None:
        self.loss = loss

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        return self.loss(student, teacher, targets, progress)


class LearnedPart(Checkpointed, Generic[Part]):
    """A net that belongs to a loss and learns next to the student, by the gradient of the same loss."""

    parts: ClassVar[tuple[str, ...]] = ("net", "optimizer")

    def __init__(self, net: Part, optimizer: Sgd, learning_rate: FloatOrSchedule, device: str) -> None:
        self.net = to_device(net, device)
        self.optimizer = optimizer.build(self.net.parameters())
        self.learning_rate = learning_rate

    def step(self, progress: Progress) -> None:
        """Take a step with the gradients from the student's backward pass."""
        set_learning_rate(self.optimizer, value_at(self.learning_rate, progress))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def make_loss_state(loss: DistillationLoss, device: str) -> LossState:
    """Return the state of `loss` for one training; the caller has seeded the generator of initial weights."""
    state: LossState = loss.new_state(device) if isinstance(loss, StatefulMethod) else StatelessLoss(loss)
    return state

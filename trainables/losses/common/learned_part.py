"""A net that belongs to a loss and learns next to the student, by the gradient of the same loss."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch import nn

from trainables.training.nets import to_device
from trainables.training.recipe import Sgd, set_learning_rate
from trainables.training.schedules import FloatOrSchedule, Progress, value_at

Part = TypeVar("Part", bound=nn.Module)


class LearnedPart(Generic[Part]):
    """Per-training state of such a net: itself and its optimizer."""

    def __init__(self, net: Part, optimizer: Sgd, learning_rate: FloatOrSchedule, device: str) -> None:
        self.net = to_device(net, device)
        self.optimizer = optimizer.build(self.net.parameters())
        self.learning_rate = learning_rate

    def step(self, progress: Progress) -> None:
        """Take a step with the gradients from the student's backward pass."""
        set_learning_rate(self.optimizer, value_at(self.learning_rate, progress))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

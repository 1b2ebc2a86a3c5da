"""What losses on maps of features share: where they find them, and an adapter between nets of different width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from study.errors import InputError
from trainables.losses.common.logits import as_float32
from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, Progress, check_range, value_at

LAST = "last"
"""The name of the features that are compared: those of a net's last layer before its prediction."""

Begun = TypeVar("Begun")


@dataclass(frozen=True)
class Adapter:
    """A 1×1 convolution from the student's channels to the teacher's, for nets of different width.

    It learns beside the student, by Adam, what the student learns: to be like the teacher.
    Raises InputError for fewer than one channel or a negative learning rate.
    """

    student_channels: int
    teacher_channels: int
    learning_rate: FloatOrSchedule = 1e-3

    def __post_init__(self) -> None:
        check_range("adapter's student_channels", self.student_channels, low=1)
        check_range("adapter's teacher_channels", self.teacher_channels, low=1)
        check_range("adapter's learning_rate", self.learning_rate, low=0)


class AdapterState:
    """An adapter in one training; without a description it leaves features as they are."""

    def __init__(self, adapter: Adapter | None, device: str) -> None:
        self.adapter = adapter
        self.conv = nn.Conv2d(adapter.student_channels, adapter.teacher_channels, 1) if adapter else nn.Identity()
        self.conv.to(device)
        self.optimizer = torch.optim.Adam([{"params": list(self.conv.parameters())}], lr=0.0, fused=True)

    def __call__(self, features: Tensor) -> Tensor:
        if self.adapter and features.shape[1] != self.adapter.student_channels:
            raise InputError(f"{self.adapter} on {features.shape[1]} channels of the student: name as many there")
        return self.conv(features)  # type: ignore[no-any-return]

    def step(self, progress: Progress) -> None:
        """A step by the gradients that the student's backward pass left here."""
        if self.adapter:
            self.optimizer.param_groups[0]["lr"] = value_at(self.adapter.learning_rate, progress)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"conv": self.conv.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.conv.load_state_dict(state["conv"])
        self.optimizer.load_state_dict(state["optimizer"])


def match_features(name: str, adapter: AdapterState, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Both nets' features (B, C, H, W), the student's adapted, float32 or wider; the teacher's carry no gradient.

    Raises InputError, for a loss of this name, where nets tell no features, or of different shapes.
    """
    if LAST not in student.features or LAST not in teacher.features:
        raise InputError(f"{name} compares features that these nets do not tell; those of super-resolution do")
    f_s, f_t = adapter(as_float32(student.features[LAST])), as_float32(teacher.features[LAST].detach())
    if f_s.shape != f_t.shape:
        shapes = " and ".join(str(tuple(features.shape[1:])) for features in (f_s, f_t))
        raise InputError(
            f"{name} of student's and teacher's features {shapes}; allowed is one height and width, and where channels "
            f"differ adapter=Adapter({student.features[LAST].shape[1]}, {f_t.shape[1]})"
        )
    return f_s, f_t


def new_seeded_state(begin: Callable[[str], Begun], outputs: Outputs) -> Begun:
    """A loss begun for one look at some outputs, on their device: its weights are the same at each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return begin(outputs.prediction.device.type)

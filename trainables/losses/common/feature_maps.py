"""Shared parts of losses on feature maps: selection of the features, and an adapter for nets of different width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from study.errors import InputError
from trainables.losses.common.logits import as_float32
from trainables.losses.state import Checkpointed
from trainables.task import LAST, Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class Adapter:
    """A 1×1 convolution from the student's channels to the teacher's, for nets of different width.

    It is trained together with the student, by the same loss, with an Adam of its own.
    Raises InputError for fewer than one channel or a negative learning rate.
    """

    student_channels: int
    teacher_channels: int
    learning_rate: FloatOrSchedule = 1e-3

    def __post_init__(self) -> None:
        check_range("adapter's student_channels", self.student_channels, low=1)
        check_range("adapter's teacher_channels", self.teacher_channels, low=1)
        check_range("adapter's learning_rate", self.learning_rate, low=0)


class AdapterState(Checkpointed):
    """Per-training state of an adapter; without an `Adapter` it is the identity."""

    parts: ClassVar[tuple[str, ...]] = ("conv", "optimizer")

    def __init__(self, adapter: Adapter | None, device: str) -> None:
        self.adapter = adapter
        self.conv = nn.Conv2d(adapter.student_channels, adapter.teacher_channels, 1) if adapter else nn.Identity()
        self.conv.to(device)
        self.optimizer = torch.optim.Adam([{"params": list(self.conv.parameters())}], lr=0.0, fused=True)

    def __call__(self, features: Tensor) -> Tensor:
        """Adapt the student's features: (B, C_s, H, W) → (B, C_t, H, W).

        Raises InputError for another number of channels than the adapter's.
        """
        if self.adapter and features.shape[1] != self.adapter.student_channels:
            raise InputError(f"{self.adapter}, but the student has {features.shape[1]} channels: give that number")
        return self.conv(features)  # type: ignore[no-any-return]

    def step(self, progress: Progress) -> None:
        """Take a step with the gradients from the student's backward pass."""
        if self.adapter:
            self.optimizer.param_groups[0]["lr"] = value_at(self.adapter.learning_rate, progress)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def match_features(name: str, adapter: AdapterState, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Return both nets' features (B, C, H, W) in float32 or wider: the student's adapted, the teacher's detached.

    Raises InputError naming the loss `name` if a net returns no features, or if their shapes differ.
    """
    if LAST not in student.features or LAST not in teacher.features:
        raise InputError(
            f"{name} compares features, which these nets do not return; nets of super-resolution do, and those of "
            "classification with taps=(…)"
        )
    f_s, f_t = adapter(as_float32(student.features[LAST])), as_float32(teacher.features[LAST].detach())
    if f_s.shape != f_t.shape:
        shapes = " and ".join(str(tuple(features.shape[1:])) for features in (f_s, f_t))
        raise InputError(
            f"{name} of student's and teacher's features {shapes}; allowed is the same height and width, and where "
            f"channels differ, adapter=Adapter({student.features[LAST].shape[1]}, {f_t.shape[1]})"
        )
    return f_s, f_t


def list_taps(outputs: Outputs) -> list[Tensor]:
    """Return the features of all taps in their order, float32 or wider; `LAST` counts where it is alone."""
    names = [name for name in outputs.features if name != LAST] or list(outputs.features)
    return [as_float32(outputs.features[name]) for name in names]


def embed_features(name: str, outputs: Outputs) -> Tensor:
    """Return the last features, maps averaged over their pixels, (B, D), float32 or wider.

    Raises InputError naming the loss `name` if the net returns no features.
    """
    if LAST not in outputs.features:
        raise InputError(f"{name} compares features, which these nets do not return: give both taps=(…)")
    features = as_float32(outputs.features[LAST])
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features

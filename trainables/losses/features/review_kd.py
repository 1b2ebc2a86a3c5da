"""ReviewKD: each stage of the teacher is matched by that stage of the student and all deeper ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.losses.common.feature_maps import list_taps
from trainables.losses.common.logits import autocast_disabled
from trainables.losses.state import LearnedPart, LossState, StatefulLoss
from trainables.task import Outputs
from trainables.training.recipe import Sgd
from trainables.training.schedules import MultiStep
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at, warmup_factor

LEVELS = (4, 2, 1)
"""Sides of the pooled maps that are compared in addition to the whole ones, each with half the weight of the last."""


@dataclass(frozen=True)
class ReviewKD(StatefulLoss):
    """weight · min((epoch + 1)/(warmup·epochs), 1) · Σ over taps of HCL(fused student features, teacher features).

    From the last tap to the first, the student's features are projected to `inner_channels` and fused with those of the
    deeper taps by two learned maps of attention (`Fusion`). HCL is the weighted mean of the squared differences of the
    maps and of their averages over 4 × 4, 2 × 2 and 1 × 1 cells, with weights 1, 1/2, 1/4 and 1/8. The taps of both
    nets are paired in their order, shallow ones first; pooled features (B, D), which the authors add, may be the last.
    Raises InputError for a setting, or an end of a schedule, out of range, and for taps that do not match the channels.
    Source: Chen et al. 2021, Distilling Knowledge via Knowledge Review, equations 4 to 6 and figure 3, with the warm-up
    of mdistiller's tables on CIFAR-100; there the teacher's features are taken before ReLU. `learning_rate` does not
    follow that of the recipe: set it alike.
    """

    student_channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the student's taps; of resnet20, 32 and so on these."""
    teacher_channels: tuple[int, ...] = (16, 32, 64)
    inner_channels: int = 64
    weight: FloatOrSchedule = 1.0
    warmup: FloatOrSchedule = 20 / 240
    """Share of the run in which the loss grows to its full weight."""
    learning_rate: FloatOrSchedule = field(default_factory=lambda: MultiStep(0.05))
    """Learning rate of the fusion."""
    optimizer: Sgd = field(default_factory=Sgd)
    task_weight: FloatOrSchedule = 1.0

    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("inner_channels", self.inner_channels, low=1)
        for name in ("weight", "learning_rate", "task_weight"):
            check_range(name, getattr(self, name), low=0)
        check_range("warmup", self.warmup, low=0, high=1)
        check_type("optimizer", self.optimizer, Sgd, "Sgd(…)")
        if is_unresolved(self):
            return
        for name in ("student_channels", "teacher_channels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; allowed are numbers of at least 1, one a tap")
        if len(self.student_channels) != len(self.teacher_channels):
            raise InputError(
                f"ReviewKD with student_channels={self.student_channels} and teacher_channels={self.teacher_channels}; "
                "allowed are as many of both"
            )

    def new_state(self, device: str) -> ReviewKDState:
        return ReviewKDState(self, device)


class ReviewKDState(LossState):
    """Per-training state: the fusion of each tap, and its optimizer."""

    parts: ClassVar[tuple[str, ...]] = ("fusions",)

    def __init__(self, loss: ReviewKD, device: str) -> None:
        self.loss = loss
        last, channels = len(loss.student_channels) - 1, zip(loss.student_channels, loss.teacher_channels, strict=True)
        fusions = nn.ModuleList(
            Fusion(c_s, loss.inner_channels, c_t, is_last=number == last) for number, (c_s, c_t) in enumerate(channels)
        )
        self.fusions = LearnedPart(fusions, loss.optimizer, loss.learning_rate, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given features (B, C, H, W) or (B, D) of both nets' taps."""
        factor = value_at(self.loss.weight, progress) * warmup_factor(self.loss.warmup, progress)
        with autocast_disabled(student):
            features_s = _list_maps(student, "student_channels", self.loss.student_channels)
            features_t = _list_maps(teacher, "teacher_channels", self.loss.teacher_channels)
            total, deeper = torch.zeros((), dtype=features_s[0].dtype, device=features_s[0].device), None
            for fusion, f_s, f_t in reversed(list(zip(self.fusions.net, features_s, features_t, strict=True))):
                matched, deeper = fusion(f_s, deeper, (f_t.shape[2], f_t.shape[3]))
                total = total + context_loss(matched, f_t.detach())
            return factor * total

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        self.fusions.step(progress)


class Fusion(nn.Module):
    """x = a₀·project(features) + a₁·deeper, (a₀, a₁) = sigmoid(attend([project(features), deeper])); match(x).

    Features (B, C_s, h, w), x of the deeper tap (B, C, …) → match(x) (B, C_t, H, W), x (B, C, H, W). `deeper` and x are
    resized to their nearest pixels. Batch norm uses each batch's own statistics; there is no evaluation.
    """

    def __init__(self, channels_s: int, inner: int, channels_t: int, is_last: bool) -> None:
        super().__init__()
        self.project = _make_layer(channels_s, inner, size=1)
        self.attend = None if is_last else nn.Conv2d(2 * inner, 2, kernel_size=1)
        self.match = _make_layer(inner, channels_t, size=3)

    def forward(self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x = self.project(features)
        if self.attend is not None and deeper is not None:
            deeper = F.interpolate(deeper, size=x.shape[2:], mode="nearest")
            attention = torch.sigmoid(self.attend(torch.cat((x, deeper), dim=1)))  # (B, 2, h, w)
            x = x * attention[:, :1] + deeper * attention[:, 1:]
        x = F.interpolate(x, size=size, mode="nearest")
        return self.match(x), x


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return HCL, the hierarchical context loss of maps (B, C, H, W): the squared differences at several levels, ()."""
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (side for side in LEVELS if side < student.shape[2]):
        weight /= 2
        pooled_s, pooled_t = (F.adaptive_avg_pool2d(maps, side) for maps in (student, teacher))
        total, weights = total + weight * F.mse_loss(pooled_s, pooled_t), weights + weight
    return total / weights


def _list_maps(outputs: Outputs, name: str, channels: tuple[int, ...]) -> list[Tensor]:
    """Return the features of all taps as maps (B, C, H, W). Raises InputError unless they have these channels."""
    maps = [features[:, :, None, None] if features.dim() == 2 else features for features in list_taps(outputs)]
    found = tuple(features.shape[1] for features in maps)
    if found != channels:
        raise InputError(f"ReviewKD with {name}={channels}, but the taps have {found or 'no'} channels: give these")
    return maps


def _make_layer(channels_in: int, channels: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, _BatchNorm(channels, track_running_stats=False))


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that also takes one value a channel, of which it returns its bias, as the value equals its mean."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps (B, C, H, W)."""
        if maps.numel() == self.num_features:
            return self.bias[:, None, None].expand_as(maps)
        return super().forward(maps)

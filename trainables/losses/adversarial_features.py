"""Adversarial feature distillation: the student's last features are to pass for the teacher's before a discriminator.

Offline: the teacher is frozen, there is one discriminator, and it never sees an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from study.errors import InputError
from trainables.losses.common.feature_maps import Adapter, AdapterState, new_seeded_state, match_features
from trainables.losses.common.logits import autocast_disabled, check_type
from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, Progress, check_range, is_unresolved, value_at


@dataclass(frozen=True)
class PatchDiscriminator:
    """`layers` halvings with width·(1, 2, 4, …) channels, then one number for each place, linear.

    Each halving is a 4×4 convolution of stride 2 and a LeakyReLU of slope 0.2.
    Raises InputError for a setting below 1.
    Source: Isola et al. 2017, section 3.2.2; P2 says "simple CNN".
    """

    in_channels: int = 64
    """Channels of the teacher's features."""
    width: int = 64
    layers: int = 4
    spectral_norm: bool = False
    """Whether convolutions are divided by their largest singular value (Miyato et al. 2018)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "width", "layers"):
            check_range(f"discriminator's {name}", getattr(self, name), low=1)

    def build(self) -> nn.Sequential:
        """Features (B, C, H, W) → (B, 1, H/2^layers, W/2^layers); fresh weights from torch's default generator."""
        channels = [self.in_channels, *(self.width * 2**layer for layer in range(self.layers))]
        halvings: list[nn.Module] = []
        for pair in pairwise(channels):
            halvings += [self._normed(nn.Conv2d(*pair, kernel_size=4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        return nn.Sequential(*halvings, self._normed(nn.Conv2d(channels[-1], 1, kernel_size=3, padding=1)))

    def _normed(self, conv: nn.Conv2d) -> nn.Module:
        return spectral_norm(conv) if self.spectral_norm else conv


@dataclass(frozen=True)
class AdversarialFeatures:
    """weight · mean (D(F_s) − 1)², while the discriminator D minimises mean (D(F_t) − 1)² + mean D(F_s)².

    F: the last features (B, C, H, W) of student and teacher. D learns by Adam, a step after each of the student's.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P2, equations 1 and 2; Mao et al. 2017 with a = 0, b = c = 1; Chung et al. 2020. P2 prints weights of 1, and
    neither the discriminator nor how it learns.
    """

    weight: FloatOrSchedule = 1e-3
    discriminator: PatchDiscriminator = field(default_factory=PatchDiscriminator)
    learning_rate: FloatOrSchedule = 2e-4
    """The discriminator's."""
    betas: tuple[float, float] = (0.5, 0.999)
    adapter: Adapter | None = None
    """For nets of different width."""
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_range("learning_rate", self.learning_rate, low=0)
        check_type("discriminator", self.discriminator, PatchDiscriminator, "PatchDiscriminator(…)")
        check_type("adapter", self.adapter, Adapter | None, "None, or Adapter(…) of numbers")
        if not is_unresolved(self.betas) and not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas is {self.betas}; allowed are two numbers from 0 to below 1")

    def new_state(self, device: str) -> AdversarialFeaturesState:
        return AdversarialFeaturesState(self, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """With a discriminator that has learnt nothing: for checks."""
        return new_seeded_state(self.new_state, student)(student, teacher, targets, progress)


class AdversarialFeaturesState:
    """Adversarial feature distillation in one training, with its discriminator and that one's optimiser."""

    def __init__(self, loss: AdversarialFeatures, device: str) -> None:
        self.loss = loss
        net = loss.discriminator.build()
        self.discriminator: nn.Module = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.0, betas=loss.betas, fused=True)
        self.adapter = AdapterState(loss.adapter, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        with autocast_disabled(student), _frozen(self.discriminator):
            fake, _ = self._compared(student, teacher)
            judged: Tensor = self.discriminator(fake)
            return value_at(self.loss.weight, progress) * (judged - 1).square().mean()

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """A step of the discriminator, then one of the adapter."""
        with autocast_disabled(student):
            fake, real = self._compared(student, teacher)
            judged_real, judged_fake = self.discriminator(real), self.discriminator(fake.detach())
            loss = (judged_real - 1).square().mean() + judged_fake.square().mean()
        self.optimizer.param_groups[0]["lr"] = value_at(self.loss.learning_rate, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.adapter.step(progress)

    def state_dict(self) -> dict[str, Any]:
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adapter": self.adapter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adapter.load_state_dict(state["adapter"])

    def _compared(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """As `compared`. Raises InputError also for features that the discriminator cannot read."""
        f_s, f_t = match_features("AdversarialFeatures", self.adapter, student, teacher)
        described, (channels, *size) = self.loss.discriminator, f_t.shape[1:]
        if channels != described.in_channels:
            raise InputError(f"{described} on features of {channels} channels: give in_channels={channels}")
        if min(size) < 2**described.layers:
            raise InputError(f"{described} on features of {tuple(size)} pixels: give fewer layers")
        return f_s, f_t


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Gradients pass through the net, not to it, and its spectral norms stay as they are."""
    net.requires_grad_(False).eval()
    try:
        yield
    finally:
        net.requires_grad_(True).train()

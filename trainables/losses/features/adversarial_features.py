"""Adversarial feature distillation: the student's last features learn to fool a discriminator that knows the teacher's.

Offline: the teacher is frozen, there is one discriminator, and its inputs are features, never images.
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
from study.space.domains import is_unresolved
from trainables.losses.common.feature_maps import Adapter, AdapterState, match_features
from trainables.losses.common.logits import autocast_disabled
from trainables.losses.reconstruction import Reconstruction
from trainables.losses.state import LossState, StatefulLoss
from trainables.task import Outputs
from trainables.training.nets import to_device
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at


@dataclass(frozen=True)
class PatchDiscriminator:
    """`layers` blocks of width·(1, 2, 4, …) channels that halve the resolution, then a 3×3 convolution to one channel.

    A block is a 4×4 convolution of stride 2 and a LeakyReLU of slope 0.2.
    Raises InputError for a setting below 1.
    Source: Isola et al. 2017, section 3.2.2; P2 specifies a "simple CNN" only.
    """

    in_channels: int = 64
    """Channels of the teacher's features."""
    width: int = 64
    layers: int = 4
    spectral_norm: bool = False
    """Whether weights are divided by their largest singular value (Miyato et al. 2018)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "width", "layers"):
            check_range(f"discriminator's {name}", getattr(self, name), low=1)

    def build(self) -> nn.Sequential:
        """Return the net, (B, C, H, W) → (B, 1, H/2^layers, W/2^layers), initialised from torch's default generator."""
        channels = [self.in_channels, *(self.width * 2**layer for layer in range(self.layers))]
        blocks: list[nn.Module] = []
        for pair in pairwise(channels):
            blocks += [self._normalise(nn.Conv2d(*pair, kernel_size=4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        return nn.Sequential(*blocks, self._normalise(nn.Conv2d(channels[-1], 1, kernel_size=3, padding=1)))

    def _normalise(self, conv: nn.Conv2d) -> nn.Module:
        return spectral_norm(conv) if self.spectral_norm else conv


@dataclass(frozen=True)
class AdversarialFeatures(StatefulLoss):
    """weight · mean (D(F_s) − 1)², while the discriminator D minimises mean (D(F_t) − 1)² + mean D(F_s)².

    F: the last features (B, C, H, W) of student and teacher. D takes one step of Adam after each of the student's.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P2, equations 1 and 2; Mao et al. 2017 with a = 0, b = c = 1; Chung et al. 2020. P2 prints weights of 1 and
    specifies neither the discriminator nor its training. Its objective as printed is AdversarialFeatures(1.0,
    reconstruction=Reconstruction("l2norm", perceptual_norm="l2norm", perceptual_weight=1.0)).
    """

    weight: FloatOrSchedule = 1e-3
    discriminator: PatchDiscriminator = field(default_factory=PatchDiscriminator)
    learning_rate: FloatOrSchedule = 2e-4
    """Learning rate of the discriminator's Adam."""
    betas: tuple[float, float] = (0.5, 0.999)
    adapter: Adapter | None = None
    """Required for nets of different width."""
    task_weight: FloatOrSchedule = 1.0
    reconstruction: Reconstruction | None = None
    """A task loss of the arm's own, in place of the task's."""

    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_range("learning_rate", self.learning_rate, low=0)
        check_type("discriminator", self.discriminator, PatchDiscriminator, "PatchDiscriminator(…)")
        check_type("adapter", self.adapter, Adapter | None, "None, or Adapter(…) of numbers")
        check_type("reconstruction", self.reconstruction, Reconstruction | None, "None, or Reconstruction(…)")
        if not is_unresolved(self.betas) and not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas is {self.betas}; allowed are two numbers from 0 to below 1")

    def new_state(self, device: str) -> AdversarialFeaturesState:
        return AdversarialFeaturesState(self, device)


class AdversarialFeaturesState(LossState):
    """Per-training state: the discriminator, the adapter and their optimizers."""

    parts: ClassVar[tuple[str, ...]] = ("discriminator", "optimizer", "adapter")

    def __init__(self, loss: AdversarialFeatures, device: str) -> None:
        self.loss = loss
        self.discriminator: nn.Module = to_device(loss.discriminator.build(), device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.0, betas=loss.betas, fused=True)
        self.adapter = AdapterState(loss.adapter, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the student's loss (), given features (B, C, H, W)."""
        with autocast_disabled(student), _freeze(self.discriminator):
            fake, _ = self._match_features(student, teacher)
            judged_fake: Tensor = self.discriminator(fake)  # (B, 1, h, w)
            return value_at(self.loss.weight, progress) * (judged_fake - 1).square().mean()

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """Take a step of the discriminator, then one of the adapter."""
        with autocast_disabled(student):
            fake, real = self._match_features(student, teacher)
            judged_real, judged_fake = self.discriminator(real), self.discriminator(fake.detach())
            loss = (judged_real - 1).square().mean() + judged_fake.square().mean()
        self.optimizer.param_groups[0]["lr"] = value_at(self.loss.learning_rate, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.adapter.step(progress)

    def _match_features(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Return both nets' features (B, C, H, W); raises InputError for a shape that the discriminator cannot take."""
        f_s, f_t = match_features("AdversarialFeatures", self.adapter, student, teacher)
        settings, (channels, *size) = self.loss.discriminator, f_t.shape[1:]
        if channels != settings.in_channels:
            raise InputError(f"{settings} on features of {channels} channels: give in_channels={channels}")
        if min(size) < 2**settings.layers:
            raise InputError(f"{settings} on features of {tuple(size)} pixels: give fewer layers")
        return f_s, f_t


@contextmanager
def _freeze(net: nn.Module) -> Iterator[None]:
    """Pass gradients through the net but not to its weights, and keep its spectral norms unchanged."""
    net.requires_grad_(False).eval()
    try:
        yield
    finally:
        net.requires_grad_(True).train()

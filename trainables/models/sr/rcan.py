"""RCAN: a very deep residual net with channel attention; a baseline of super-resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.errors import InputError
from trainables.models.sr.common import DIV2K_MEAN, PUBLISHED_RANGE, SROutput, check_scale

SCALES = (2, 4, 8)
PUBLISHED = {"groups": 10, "blocks": 20, "width": 64}
REDUCTION = 16
"""Channels per channel of the attention's bottleneck."""


@dataclass(frozen=True)
class RCAN:
    """`groups` residual groups of `blocks` residual blocks each, all of `width` channels.

    Raises InputError for fewer than one group or block, or a width that is no multiple of 16.
    Source: Zhang et al. 2018, section 3, with the mean of DIV2K subtracted from pixels from 0 to 255.
    """

    groups: int = PUBLISHED["groups"]
    blocks: int = PUBLISHED["blocks"]
    width: int = PUBLISHED["width"]

    def __post_init__(self) -> None:
        if min(self.groups, self.blocks, self.width) < 1 or self.width % REDUCTION:
            raise InputError(f"{self}: allowed are one group and block or more, and a width of {REDUCTION}, 32, …")

    @property
    def name(self) -> str:
        """`rcan` as published, `rcan-g5-b10` with other groups and blocks."""
        changed = (f"-{key[0]}{value}" for key, value in vars(self).items() if value != PUBLISHED[key])
        return "rcan" + "".join(changed)

    def build(self, scale: int) -> nn.Module:
        """A net with fresh weights, drawn from torch's default generator: the caller seeds it.

        Raises InputError for a scale other than 2, 4 or 8.
        """
        check_scale(self.name, scale, SCALES)
        return ResidualChannelAttention(self, scale)


class ResidualChannelAttention(nn.Module):
    """Images (B, 3, h, w) in [0, 1] → Restored, features of `width` channels."""

    mean: Tensor

    def __init__(self, spec: RCAN, scale: int) -> None:
        super().__init__()
        w = spec.width
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN)[:, None, None], persistent=False)
        self.head = _conv(3, w)
        self.body = Residual(*(_group(w, spec.blocks) for _ in range(spec.groups)), _conv(w, w))
        doublings = (nn.Sequential(_conv(w, 4 * w), nn.PixelShuffle(2)) for _ in range(scale.bit_length() - 1))
        self.upsampling = nn.Sequential(*doublings)
        self.rgb = _conv(w, 3)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        x = PUBLISHED_RANGE * (low - self.mean)
        features = self.upsampling(self.body(self.head(x)))
        return SROutput(self.rgb(features) / PUBLISHED_RANGE + self.mean, features)


class Residual(nn.Sequential):
    """x + the layers' output."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)  # type: ignore[no-any-return]


class ChannelAttention(nn.Module):
    """x times a factor in (0, 1) for each channel, from the means of all of them: (B, C, H, W) → same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // REDUCTION, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // REDUCTION, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x)  # type: ignore[no-any-return]


def _group(width: int, blocks: int) -> nn.Module:
    return Residual(*(_block(width) for _ in range(blocks)), _conv(width, width))


def _block(width: int) -> nn.Module:
    return Residual(_conv(width, width), nn.ReLU(inplace=True), _conv(width, width), ChannelAttention(width))


def _conv(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)

"""RCAN, a baseline of super-resolution: a very deep residual net with channel attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.models.sr.common import DIV2K_MEAN, PUBLISHED_RANGE, SROutput, check_scale

SCALES = (2, 4, 8)
PUBLISHED = {"groups": 10, "blocks": 20, "width": 64}
REDUCTION = 16
"""Channels of a block per channel of its attention's bottleneck, as published."""


@dataclass(frozen=True)
class RCAN:
    """Settings of an RCAN with `groups` residual groups of `blocks` residual blocks each, all of `width` channels.

    Raises InputError for fewer than one group or block, or a width that is not a multiple of 16.
    """

    groups: int = PUBLISHED["groups"]
    blocks: int = PUBLISHED["blocks"]
    width: int = PUBLISHED["width"]

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if min(self.groups, self.blocks, self.width) < 1 or self.width % REDUCTION:
            raise InputError(f"{self}: allowed are one group and block or more, and a width of {REDUCTION}, 32, …")

    @property
    def name(self) -> str:
        """`rcan` as published, `rcan-g5-b10` with other groups and blocks."""
        changed = (f"-{key[0]}{value}" for key, value in vars(self).items() if value != PUBLISHED[key])
        return "rcan" + "".join(changed)

    def build(self, scale: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds.

        Raises InputError for a scale other than 2, 4 or 8.
        """
        check_scale(self.name, scale, SCALES)
        return ResidualChannelAttention(self, scale)


class ResidualChannelAttention(nn.Module):
    """RCAN: images (B, 3, h, w) in [0, 1] → SROutput with features (B, width, H, W).

    15,740,067 parameters as published, at scale 8.
    Source: Zhang et al. 2018, section 3; the mean of DIV2K is subtracted from pixel values from 0 to 255.
    """

    mean: Tensor

    def __init__(self, spec: RCAN, scale: int) -> None:
        super().__init__()
        w = spec.width
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN)[:, None, None], persistent=False)
        self.head = _conv3x3(3, w)
        self.body = Residual(*(_make_group(w, spec.blocks) for _ in range(spec.groups)), _conv3x3(w, w))
        doublings = (nn.Sequential(_conv3x3(w, 4 * w), nn.PixelShuffle(2)) for _ in range(scale.bit_length() - 1))
        self.upsampling = nn.Sequential(*doublings)
        self.rgb = _conv3x3(w, 3)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        """Return images (B, 3, H, W) of small ones (B, 3, h, w); `boxes` are ignored."""
        x = PUBLISHED_RANGE * (low - self.mean)
        features = self.upsampling(self.body(self.head(x)))
        return SROutput(self.rgb(features) / PUBLISHED_RANGE + self.mean, features)


class Residual(nn.Sequential):
    """x + layers(x): (B, C, H, W) → (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)  # type: ignore[no-any-return]


class ChannelAttention(nn.Module):
    """Scale each channel by a factor in (0, 1) computed from all channels' means: (B, C, H, W) → (B, C, H, W)."""

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


def _make_group(width: int, blocks: int) -> nn.Module:
    return Residual(*(_make_block(width) for _ in range(blocks)), _conv3x3(width, width))


def _make_block(width: int) -> nn.Module:
    return Residual(_conv3x3(width, width), nn.ReLU(inplace=True), _conv3x3(width, width), ChannelAttention(width))


def _conv3x3(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)

"""MCNN, the student of crowd counting: three columns of convolutions for heads of three sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved

COLUMNS = (
    ((9, 16), (7, 32), (7, 16), (7, 8)),
    ((7, 20), (5, 40), (5, 20), (5, 10)),
    ((5, 24), (3, 48), (3, 24), (3, 12)),
)
"""Kernel size and channels of each column's four convolutions, as published."""


@dataclass(frozen=True)
class MCNN:
    """Settings of an MCNN with `width` times the published channels, rounded.

    Raises InputError for a width outside (0, 4].
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if not 0 < self.width <= 4:
            raise InputError(f"MCNN of width {self.width}; allowed is above 0 to 4, the published net has 1")

    @property
    def name(self) -> str:
        """`mcnn` at the published width, `mcnn-0.35` at 0.35 of it."""
        return "mcnn" if self.width == 1 else f"mcnn-{self.width:g}"

    def build(self, channels: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return MultiColumn(channels, self.width)


class MultiColumn(nn.Module):
    """MCNN: normalised images (B, C, H, W), H and W multiples of 4 → density maps (B, 1, H/4, W/4).

    133,705 parameters at width 1 with three input channels. There is no ReLU after the last convolution, which some
    implementations have: a map that is 0 everywhere would get no gradient.
    Source: Zhang et al. 2016, figure 2.
    """

    def __init__(self, channels: int, width: float) -> None:
        super().__init__()
        scaled = [[(size, max(1, round(width * count))) for size, count in column] for column in COLUMNS]
        self.columns = nn.ModuleList(_make_column(channels, column) for column in scaled)
        self.fuse = nn.Conv2d(sum(column[-1][1] for column in scaled), 1, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return density maps (B, 1, H/4, W/4) of images (B, C, H, W)."""
        return self.fuse(torch.cat([column(images) for column in self.columns], dim=1))  # type: ignore[no-any-return]


def _make_column(channels: int, convolutions: list[tuple[int, int]]) -> nn.Sequential:
    """Return four convolutions with ReLU and 2×2 max pooling after the first two."""
    layers: list[nn.Module] = []
    for number, (size, count) in enumerate(convolutions):
        conv = nn.Conv2d(channels, count, size, padding=size // 2)
        # He initialisation: without batch norm, the published N(0, 0.01) shrinks activations from layer to layer
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.ReLU(inplace=True), *([nn.MaxPool2d(2)] if number < 2 else [])]
        channels = count
    return nn.Sequential(*layers)

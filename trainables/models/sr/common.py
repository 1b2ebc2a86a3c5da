"""What all nets of super-resolution return, and bicubic enlargement: where some of them start, and a baseline of all.

Such a net is `net(low, boxes)`: an image (B, 3, h, w) in [0, 1], and boxes (B, 4, 4) of face components or None, which
only a net with a dictionary reads (component_transfer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Of red, green and blue in [0, 1]; what RCAN and SRFBN subtract."""

PUBLISHED_RANGE = 255
"""RCAN and SRFBN compute on pixels from 0 to 255."""


class SROutput(NamedTuple):
    """What a net makes of a batch of small images, at `scale` times their size."""

    image: Tensor
    """(B, 3, H, W), in [0, 1] but for overshoot."""
    features: Tensor
    """(B, C, H, W): of the last layer before the convolution to RGB."""
    steps: Tensor | None = None
    """(B, T, 3, H, W): all that a recurrent net said on its way, `image` the last; in training its loss is their mean.

    None where there is one output, and in evaluation.
    """


@dataclass(frozen=True)
class Bicubic:
    """Enlargement without anything to learn."""

    name: str = "bicubic"

    def build(self, scale: int) -> nn.Module:
        return BicubicUpsampler(scale)


class BicubicUpsampler(nn.Module):
    """Images (B, 3, h, w) → the same at `scale` times the size; the image stands in for features."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        image = upsample_bicubic(low, self.scale)
        return SROutput(image, image)


def upsample_bicubic(images: Tensor, scale: int) -> Tensor:
    """Bicubic: (B, C, h, w) → (B, C, scale·h, scale·w), with overshoot at edges."""
    # antialias changes nothing where images grow but the kernel: a = −0.5 as in PIL and MATLAB, in place of −0.75
    return F.interpolate(images, scale_factor=scale, mode="bicubic", antialias=True)


def check_scale(name: str, scale: int, allowed: tuple[int, ...]) -> None:
    """Raises InputError unless a net has this scale."""
    if scale not in allowed:
        raise InputError(f"{name} at scale {scale}; allowed are {', '.join(map(str, allowed))}")

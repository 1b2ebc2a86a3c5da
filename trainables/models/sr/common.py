"""The interface of super-resolution nets, and bicubic interpolation, from which some of them start.

A net is called as `net(low, boxes)`: images (B, 3, h, w) in [0, 1], and boxes (B, 4, 4) of face components or None.
Only a net with a dictionary reads the boxes (component_transfer.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError

COMPONENTS = ("left_eye", "right_eye", "nose", "mouth")
"""The order of boxes (B, 4, 4): each x0, y0, x1, y1 in pixels of the full-size image. Left is left in the image."""

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of red, green and blue in [0, 1] over DIV2K, which RCAN and SRFBN subtract."""

PUBLISHED_RANGE = 255
"""RCAN and SRFBN compute on pixel values from 0 to 255."""


class SROutput(NamedTuple):
    """Output of a net for a batch of small images: H = scale·h, W = scale·w."""

    image: Tensor
    """(B, 3, H, W), in [0, 1] but for overshoot."""
    features: Tensor
    """(B, C, H, W): input of the last convolution, which returns RGB."""
    steps: Tensor | None = None
    """(B, T, 3, H, W): the images of all T steps of a recurrent net in training, `image` the last; its loss is the mean
    over them. None in evaluation, and for a net with one output."""


@dataclass(frozen=True)
class Bicubic:
    """Bicubic interpolation as a model: a baseline without parameters."""

    name: str = "bicubic"

    def build(self, scale: int) -> nn.Module:
        return BicubicUpsampler(scale)


class BicubicUpsampler(nn.Module):
    """Images (B, 3, h, w) → SROutput at `scale` times the size; its features are the image itself. No parameters."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        """Return images (B, 3, H, W) of small ones (B, 3, h, w); `boxes` are ignored."""
        image = upsample_bicubic(low, self.scale)
        return SROutput(image, image)


def upsample_bicubic(images: Tensor, scale: int) -> Tensor:
    """Return images (B, C, h, w) interpolated to (B, C, scale·h, scale·w), with overshoot at edges."""
    # in upsampling, antialias only changes the kernel: a = −0.5 as in PIL and MATLAB instead of −0.75
    return F.interpolate(images, scale_factor=scale, mode="bicubic", antialias=True)


def check_scale(name: str, scale: int, allowed: tuple[int, ...]) -> None:
    """Raise InputError unless `scale` is one of those that the net `name` supports."""
    if scale not in allowed:
        raise InputError(f"{name} at scale {scale}; allowed are {', '.join(map(str, allowed))}")

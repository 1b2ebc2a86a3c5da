"""MobileNetV2 for small images, of half the width in the field's tables.

Modules are named as in the field's published checkpoints (conv1.0, blocks.0.0.conv.0, conv2.0, classifier.0).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import IF_SET
from study.space.domains import is_unresolved
from trainables.models.cifar_layers import GlobalMean, add_taps, make_conv

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels at width 1, blocks and stride of each stage; the second one has stride 1 instead of 2."""
STEM, LAST_CHANNELS = 32, 1280
PUBLISHED_WIDTH = 0.5


@dataclass(frozen=True)
class MobileNetV2:
    """Settings of a MobileNetV2 with `width` times the channels of the original, rounded down.

    Raises InputError for a width outside [1/16, 4].
    """

    width: float = PUBLISHED_WIDTH
    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare, such as ("blocks.1", "blocks.2", "blocks.4",
    "blocks.6"), or "avgpool"."""

    def __post_init__(self) -> None:
        if not is_unresolved(self) and not 1 / 16 <= self.width <= 4:
            raise InputError(f"MobileNetV2 of width {self.width}; allowed is 1/16 to 4, the field's tables have 0.5")

    @property
    def name(self) -> str:
        """`mobilenetv2` at width 0.5, `mobilenetv2x1` at width 1."""
        return "mobilenetv2" if self.width == PUBLISHED_WIDTH else f"mobilenetv2x{self.width:g}"

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return add_taps(CifarMobileNetV2(self.width, channels, classes), self.taps)


class CifarMobileNetV2(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K); maps are smaller by 16 at the end.

    With 3 channels and 100 classes at width 0.5: 812,836 parameters.
    Source: Sandler et al. 2018, table 2, with ReLU and the strides of the code of Tian et al. 2020.
    """

    def __init__(self, width: float, channels: int, classes: int) -> None:
        super().__init__()
        last = int(STEM * width)
        self.conv1 = _make_layer(channels, last, size=3, stride=2)
        stages: list[nn.Module] = []
        for expansion, count, blocks, stride in STAGES:
            out = int(count * width)
            first = InvertedResidual(last, out, stride, expansion)
            stages.append(nn.Sequential(first, *(InvertedResidual(out, out, 1, expansion) for _ in range(blocks - 1))))
            last = out
        self.blocks = nn.Sequential(*stages)
        pooled = int(LAST_CHANNELS * max(width, 1.0))
        self.conv2 = _make_layer(last, pooled, size=1)
        self.avgpool = GlobalMean()
        linear = nn.Linear(pooled, classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        self.classifier = nn.Sequential(linear)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = F.relu(self.conv2(self.blocks(F.relu(self.conv1(images)))))
        return self.classifier(self.avgpool(x))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """1×1 convolution to expansion·channels_in, 3×3 of each channel alone, 1×1 to channels; plus x where shapes allow.

    (B, channels_in, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels_in
        self.conv = nn.Sequential(
            *(*_make_layer(channels_in, inner, size=1), nn.ReLU(inplace=True)),
            *(*_make_layer(inner, inner, size=3, stride=stride, groups=inner), nn.ReLU(inplace=True)),
            *_make_layer(inner, channels, size=1),
        )
        self.adds_input = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.adds_input else out


def _make_layer(channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution and its batch norm."""
    return nn.Sequential(make_conv(channels_in, channels, size, stride, groups), nn.BatchNorm2d(channels))

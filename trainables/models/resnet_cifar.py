"""The `resnet_cifar` family: residual nets for small images, as in the distillation literature.

Modules are named as in that literature's published checkpoints (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0,
fc). Not included: resnet8x4 and resnet32x4, whose stem is narrower than stage 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved

DEPTHS = (8, 14, 20, 32, 44, 56, 110)
PUBLISHED_WIDTH = 16


@dataclass(frozen=True)
class ResNet:
    """Settings of a residual net of `depth` = 6n + 2 layers: three stages of n blocks, with width·(1, 2, 4) channels.

    Raises InputError for a depth outside DEPTHS or a width below 1.
    """

    depth: int
    width: int = PUBLISHED_WIDTH

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.depth not in DEPTHS:
            raise InputError(f"ResNet of depth {self.depth}; resnet_cifar has: {', '.join(map(str, DEPTHS))}")
        if self.width < 1:
            raise InputError(
                f"ResNet of width {self.width}; allowed is 1 or more, published nets have {PUBLISHED_WIDTH}"
            )

    @property
    def name(self) -> str:
        """`resnet8` at the published width, `resnet8w4` at width 4."""
        return f"resnet{self.depth}" + (f"w{self.width}" if self.width != PUBLISHED_WIDTH else "")

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return CifarResNet(blocks=(self.depth - 2) // 6, width=self.width, channels=channels, classes=classes)


class CifarResNet(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K).

    With 3 channels and 100 classes at width 16: 83,892 parameters at depth 8, 278,324 at 20, 1,736,564 at 110.
    Source: He et al. 2016, section 4.2, with 1×1 convolutions where a block changes the shape.
    """

    def __init__(self, blocks: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = _make_conv(channels, width, size=3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _make_stage(width, width, blocks, stride=1)
        self.layer2 = _make_stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _make_stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)  # (B, width, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 4·width, ⌈H/4⌉, ⌈W/4⌉)
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: ReLU(bn2(conv2(ReLU(bn1(conv1(x))))) + shortcut(x)).

    (B, channels_in, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _make_conv(channels_in, channels, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _make_conv(channels, channels, size=3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                _make_conv(channels_in, channels, size=1, stride=stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut, inplace=True)


def _make_stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)))


def _make_conv(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv

"""The `resnet_cifar` family: residual nets for small images, as in the distillation literature.

Modules are named as in that literature's published checkpoints (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0,
fc). resnet8x4 and resnet32x4 are ResNet(8, 64, stem=32) and ResNet(32, 64, stem=32).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import IF_SET
from study.space.domains import is_unresolved
from trainables.models.cifar_layers import GlobalMean, add_taps, make_conv

DEPTHS = (8, 14, 20, 32, 44, 56, 110)
PUBLISHED_WIDTH = 16
X4 = (64, 32)
"""Width and stem of the published resnet8x4 and resnet32x4, whose stem is twice as wide as others, not four times."""


@dataclass(frozen=True)
class ResNet:
    """Settings of a residual net of `depth` = 6n + 2 layers: three stages of n blocks, with width·(1, 2, 4) channels.

    Raises InputError for a depth outside DEPTHS, or a width or stem below 1.
    """

    depth: int
    width: int = PUBLISHED_WIDTH
    stem: int | None = field(default=None, metadata=IF_SET)
    """Channels of the first convolution; None stands for `width`."""
    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare, such as ("layer1", "layer2", "layer3"), or "avgpool";
    losses of one map compare the last one."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.depth not in DEPTHS:
            raise InputError(f"ResNet of depth {self.depth}; resnet_cifar has: {', '.join(map(str, DEPTHS))}")
        if self.width < 1:
            raise InputError(
                f"ResNet of width {self.width}; allowed is 1 or more, published nets have {PUBLISHED_WIDTH}"
            )
        if self.stem is not None and self.stem < 1:
            raise InputError(f"ResNet with a stem of {self.stem} channels; allowed is 1 or more")

    @property
    def name(self) -> str:
        """`resnet8` at the published width, `resnet8w4` at width 4, `resnet8x4` at width 64 with a stem of 32."""
        if (self.width, self.stem) == X4:
            return f"resnet{self.depth}x4"
        width = f"w{self.width}" if self.width != PUBLISHED_WIDTH else ""
        return f"resnet{self.depth}{width}" + (f"s{self.stem}" if self.stem is not None else "")

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        net = CifarResNet((self.depth - 2) // 6, self.width, self.stem or self.width, channels, classes)
        return add_taps(net, self.taps)


class CifarResNet(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K).

    With 3 channels and 100 classes at width 16: 83,892 parameters at depth 8, 278,324 at 20, 1,736,564 at 110;
    1,233,540 and 7,433,860 for resnet8x4 and resnet32x4.
    Source: He et al. 2016, section 4.2, with 1×1 convolutions where a block changes the shape.
    """

    def __init__(self, blocks: int, width: int, stem: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = make_conv(channels, stem, size=3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _make_stage(stem, width, blocks, stride=1)
        self.layer2 = _make_stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _make_stage(2 * width, 4 * width, blocks, stride=2)
        self.avgpool = GlobalMean()
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)  # (B, width, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 4·width, ⌈H/4⌉, ⌈W/4⌉)
        return self.fc(self.avgpool(x))  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: ReLU(bn2(conv2(ReLU(bn1(conv1(x))))) + shortcut(x)).

    (B, channels_in, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = make_conv(channels_in, channels, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = make_conv(channels, channels, size=3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                make_conv(channels_in, channels, size=1, stride=stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut, inplace=True)


def _make_stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)))

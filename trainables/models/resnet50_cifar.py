"""ResNet-50 for small images, a teacher of the field's tables.

Modules are named as in the field's published checkpoints (conv1, bn1, layer1.0.conv1, layer1.0.shortcut.0, linear).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from study.identity import IF_SET
from trainables.models.cifar_layers import GlobalMean, add_taps, make_conv

STEM = 64
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner channels, blocks and stride of each stage."""
EXPANSION = 4


@dataclass(frozen=True)
class ResNet50:
    """Settings of a ResNet-50 whose first convolution is 3×3 of stride 1, without pooling."""

    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare, such as ("layer1", "layer2", "layer3", "layer4"), or
    "avgpool"."""

    @property
    def name(self) -> str:
        return "resnet50"

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return add_taps(CifarResNet50(channels, classes), self.taps)


class CifarResNet50(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K); maps are smaller by 8 at the end.

    With 3 channels and 100 classes: 23,705,252 parameters.
    Source: He et al. 2016, table 1, with the stem of its nets for CIFAR.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = make_conv(channels, STEM, size=3), nn.BatchNorm2d(STEM)
        widths = (STEM, *(EXPANSION * inner for inner, _, _ in STAGES))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                Bottleneck(widths[number], inner, stride),
                *(Bottleneck(EXPANSION * inner, inner, stride=1) for _ in range(blocks - 1)),
            )
            for number, (inner, blocks, stride) in enumerate(STAGES)
        )
        self.avgpool = GlobalMean()
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = self.layer1(F.relu(self.bn1(self.conv1(images)), inplace=True))
        return self.linear(self.avgpool(self.layer4(self.layer3(self.layer2(x)))))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """ReLU(shortcut + f(x)), f: 1×1 convolution to `inner` channels, 3×3, 1×1 to four times as many.

    (B, channels_in, H, W) → (B, 4·inner, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels_in: int, inner: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * inner
        self.conv1, self.bn1 = make_conv(channels_in, inner, size=1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = make_conv(inner, inner, size=3, stride=stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = make_conv(inner, out, size=1), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != out:
            self.shortcut = nn.Sequential(make_conv(channels_in, out, size=1, stride=stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x), inplace=True)

"""ShuffleNet V1 and V2 for small images, as in the field's tables.

Modules are named as in the field's published checkpoints (conv1, bn1, layer1.0.conv1, …, linear).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.identity import IF_SET
from trainables.models.cifar_layers import GlobalMean, add_taps

STEM = 24
V1_STAGES, V1_GROUPS = ((240, 4), (480, 8), (960, 4)), 3
"""Channels and blocks of each stage of V1, and the groups of its 1×1 convolutions."""
V2_STAGES, V2_LAST = ((116, 4), (232, 8), (464, 4)), 1024
"""Channels and blocks of each stage of V2 at width 1, and its channels before pooling."""


@dataclass(frozen=True)
class ShuffleNetV1:
    """Settings of ShuffleNet V1 of three groups."""

    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare: ("layer1", "layer2", "layer3"), or "avgpool"."""

    @property
    def name(self) -> str:
        return "shufflenetv1"

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return add_taps(CifarShuffleNetV1(channels, classes), self.taps)


@dataclass(frozen=True)
class ShuffleNetV2:
    """Settings of ShuffleNet V2 of width 1."""

    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare: ("layer1", "layer2", "layer3"), or "avgpool"."""

    @property
    def name(self) -> str:
        return "shufflenetv2"

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return add_taps(CifarShuffleNetV2(channels, classes), self.taps)


class CifarShuffleNetV1(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K); maps are smaller by 8 at the end.

    With 3 channels and 100 classes: 949,258 parameters.
    Source: Zhang et al. 2018, table 1, 3 groups, with a 1×1 stem and without its pooling, as in the code of Tian et
    al. 2020.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, STEM, 1, bias=False), nn.BatchNorm2d(STEM)
        widths = (STEM, *(count for count, _ in V1_STAGES))
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                GroupedBlock(widths[number], count - widths[number], stride=2),
                *(GroupedBlock(count, count, stride=1) for _ in range(blocks - 1)),
            )
            for number, (count, blocks) in enumerate(V1_STAGES)
        )
        self.avgpool = GlobalMean()
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)))
        return self.linear(self.avgpool(self.layer3(self.layer2(self.layer1(x)))))  # type: ignore[no-any-return]


class GroupedBlock(nn.Module):
    """ReLU(x + f(x)), or at stride 2 ReLU([f(x), mean of 3×3 pixels of x]); f: grouped 1×1, shuffle, 3×3, grouped 1×1.

    (B, channels_in, H, W) → (B, channels, H, W), or (B, channels + channels_in, ⌈H/2⌉, ⌈W/2⌉).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.groups = 1 if channels_in == STEM else V1_GROUPS
        self.conv1, self.bn1 = nn.Conv2d(channels_in, inner, 1, groups=self.groups, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _make_depthwise(inner, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, channels, 1, groups=V1_GROUPS, bias=False), nn.BatchNorm2d(channels)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = F.channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inner)))))
        if self.stride == 1:
            return F.relu(x + out)
        return F.relu(torch.cat((out, F.avg_pool2d(x, 3, stride=2, padding=1)), dim=1))


class CifarShuffleNetV2(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K); maps are smaller by 8 at the end.

    With 3 channels and 100 classes: 1,355,528 parameters.
    Source: Ma et al. 2018, table 5, width 1, with a 1×1 stem and without its pooling, as in the code of Tian et al.
    2020.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, STEM, 1, bias=False), nn.BatchNorm2d(STEM)
        widths = (STEM, *(count for count, _ in V2_STAGES))
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(StridedSplitBlock(widths[number], count), *(SplitBlock(count) for _ in range(blocks - 1)))
            for number, (count, blocks) in enumerate(V2_STAGES)
        )
        self.conv2, self.bn2 = nn.Conv2d(widths[-1], V2_LAST, 1, bias=False), nn.BatchNorm2d(V2_LAST)
        self.avgpool = GlobalMean()
        self.linear = nn.Linear(V2_LAST, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        return self.linear(self.avgpool(F.relu(self.bn2(self.conv2(x)))))  # type: ignore[no-any-return]


class SplitBlock(nn.Module):
    """The first half of the channels as it is, the second through 1×1, 3×3 and 1×1 convolutions, then shuffled.

    (B, C, H, W) → (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = _make_depthwise(half), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(changed)))))
        return F.channel_shuffle(torch.cat((kept, F.relu(self.bn3(self.conv3(changed)))), dim=1), 2)


class StridedSplitBlock(nn.Module):
    """Two branches of all channels, 3×3 and 1×1, and 1×1, 3×3 and 1×1, each to half of `channels`, then shuffled.

    (B, channels_in, H, W) → (B, channels, ⌈H/2⌉, ⌈W/2⌉).
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _make_depthwise(channels_in, stride=2), nn.BatchNorm2d(channels_in)
        self.conv2, self.bn2 = nn.Conv2d(channels_in, half, 1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(channels_in, half, 1, bias=False), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = _make_depthwise(half, stride=2), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        short = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        long = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        return F.channel_shuffle(torch.cat((short, F.relu(self.bn5(self.conv5(long)))), dim=1), 2)


def _make_depthwise(channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)

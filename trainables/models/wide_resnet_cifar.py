"""Wide residual nets for small images: WRN-16-2, WRN-40-1 and WRN-40-2 of the field's tables.

Modules are named as in the field's published checkpoints (conv1, block1.layer.0.bn1, block2.layer.0.convShortcut, bn1,
fc).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import IF_SET
from study.space.domains import is_unresolved
from trainables.models.cifar_layers import GlobalMean, add_taps, make_conv

STEM = 16


@dataclass(frozen=True)
class WideResNet:
    """Settings of WRN-`depth`-`widen`: three stages of (depth − 4)/6 blocks, with 16·widen·(1, 2, 4) channels.

    Raises InputError for a depth that is not 6n + 4, or a factor below 1.
    """

    depth: int
    widen: int
    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare, such as ("block1", "block2", "block3"), which are
    taken before batch norm and ReLU, or "avgpool"."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.depth < 10 or self.depth % 6 != 4:
            raise InputError(f"WideResNet of depth {self.depth}; allowed are 10, 16, 22, 28, 34, 40 and so on")
        if self.widen < 1:
            raise InputError(f"WideResNet widened by {self.widen}; allowed is 1 or more")

    @property
    def name(self) -> str:
        """`wrn_40_2`."""
        return f"wrn_{self.depth}_{self.widen}"

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        net = CifarWideResNet((self.depth - 4) // 6, STEM * self.widen, channels, classes)
        return add_taps(net, self.taps)


class CifarWideResNet(nn.Module):
    """Normalised images (B, C, H, W) of any height and width → logits (B, K).

    With 3 channels and 100 classes: 703,284 parameters of WRN-16-2, 569,780 of WRN-40-1, 2,255,156 of WRN-40-2.
    Source: Zagoruyko & Komodakis 2016, table 1, without dropout.
    """

    def __init__(self, blocks: int, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = make_conv(channels, STEM, size=3)
        self.block1 = _make_stage(STEM, width, blocks, stride=1)
        self.block2 = _make_stage(width, 2 * width, blocks, stride=2)
        self.block3 = _make_stage(2 * width, 4 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.avgpool = GlobalMean()
        self.fc = nn.Linear(4 * width, classes)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))  # (B, 4·width, ⌈H/4⌉, ⌈W/4⌉)
        return self.fc(self.avgpool(F.relu(self.bn1(x))))  # type: ignore[no-any-return]


class PreactivationBlock(nn.Module):
    """shortcut + conv2(ReLU(bn2(conv1(a)))), a = ReLU(bn1(x)); the shortcut is x, or a 1×1 convolution of a.

    (B, channels_in, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = make_conv(channels_in, channels, size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = make_conv(channels, channels, size=3)
        self.convShortcut: nn.Module | None = None  # the name in published checkpoints
        if channels_in != channels:
            self.convShortcut = make_conv(channels_in, channels, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        x = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        return shortcut + self.conv2(x)  # type: ignore[no-any-return]


def _make_stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    # a stage of WRN-…-1 that keeps the channels keeps the resolution, too: the first one, which has stride 1
    first = PreactivationBlock(channels_in, channels, stride)
    further = (PreactivationBlock(channels, channels, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *further)))

"""VGG with batch norm for small images: VGG8 and VGG13 of the field's tables.

Modules are named as in the field's published checkpoints (block0.0, block0.1, …, classifier).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import IF_SET
from study.space.domains import is_unresolved
from trainables.models.cifar_layers import GlobalMean, add_taps, make_conv

CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""By depth, the number of convolutions in each of five blocks."""
PUBLISHED_WIDTH = 64
LARGE = 64
"""Height from which the fourth block is pooled, too."""


@dataclass(frozen=True)
class VGG:
    """Settings of a VGG of `depth` layers, five blocks with width·(1, 2, 4, 8, 8) channels.

    Raises InputError for a depth outside CONVOLUTIONS or a width below 1.
    """

    depth: int
    width: int = PUBLISHED_WIDTH
    taps: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """Names of layers whose outputs losses on features compare, such as ("block1", "block2", "block3", "block4"), which
    are taken before ReLU, or "pool4"."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.depth not in CONVOLUTIONS:
            raise InputError(f"VGG of depth {self.depth}; allowed are {', '.join(map(str, CONVOLUTIONS))}")
        if self.width < 1:
            raise InputError(f"VGG of width {self.width}; allowed is 1 or more, published nets have {PUBLISHED_WIDTH}")

    @property
    def name(self) -> str:
        """`vgg8` at the published width, `vgg8w16` at width 16."""
        return f"vgg{self.depth}" + (f"w{self.width}" if self.width != PUBLISHED_WIDTH else "")

    def build(self, channels: int, classes: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds."""
        return add_taps(CifarVGG(CONVOLUTIONS[self.depth], self.width, channels, classes), self.taps)


class CifarVGG(nn.Module):
    """Normalised images (B, C, H, W) of 8 pixels or more → logits (B, K).

    The last maps are averaged, so that there is one linear layer, and images below 64 pixels are pooled three times
    before. With 3 channels and 100 classes at width 64: 3,965,028 parameters at depth 8, 9,462,180 at 13.
    Source: Simonyan & Zisserman 2015, table 1, with batch norm, as in the code of Tian et al. 2020.
    """

    def __init__(self, convolutions: tuple[int, ...], width: int, channels: int, classes: int) -> None:
        super().__init__()
        widths = [channels, *(width * factor for factor in (1, 2, 4, 8, 8))]
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            _make_block(widths[number], widths[number + 1], count) for number, count in enumerate(convolutions)
        )
        self.pool4 = GlobalMean()
        self.classifier = nn.Linear(widths[-1], classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        x = images
        for block in (self.block0, self.block1, self.block2):
            x = F.max_pool2d(F.relu(block(x)), 2)
        x = F.relu(self.block3(x))
        if images.shape[2] >= LARGE:
            x = F.max_pool2d(x, 2)
        return self.classifier(self.pool4(F.relu(self.block4(x))))  # type: ignore[no-any-return]


def _make_block(channels_in: int, channels: int, convolutions: int) -> nn.Sequential:
    """Return 3×3 convolutions with batch norm, and ReLU between them."""
    layers: list[nn.Module] = []
    for number in range(convolutions):
        conv = make_conv(channels if number else channels_in, channels, size=3, bias=True)
        layers += [*([nn.ReLU(inplace=True)] if number else []), conv, nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)

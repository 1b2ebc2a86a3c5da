"""M-SFANet: VGG-16 with context at many scales and two decoders, for density and attention; the teacher of crowds.

Layers of the front end are numbered as torchvision's `vgg16_bn().features`, so that its ImageNet weights fit. Left
out: M-SegNet, with which the paper's best figures are averaged, and names as in the authors' checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP  # type: ignore[import-untyped]
from torchvision.models.vgg import make_layers  # type: ignore[import-untyped]

from study.errors import InputError
from trainables.models.backbones.pretrained import imagenet_weights

PUBLISHED_WIDTH = 64
STRIDE = 16
"""Height and width of images are multiples of it."""

IMAGENET_FILE = "vgg16_bn-6c64b313.pth"
"""torchvision's VGG16_BN_Weights.IMAGENET1K_V1; its name ends in the beginning of its SHA-256."""


@dataclass(frozen=True)
class MSFANet:
    """M-SFANet with `width`·(1, 2, 4, 8) channels at strides 1 to 8; `imagenet` starts its VGG from ImageNet weights.

    Raises InputError for a width that is odd or below 2, and for ImageNet weights at another than the published width.
    Source: Thanasutives et al. 2020, section III; CAN: Liu et al. 2019, equations 1 to 5; ASPP: Chen et al. 2017.
    """

    width: int = PUBLISHED_WIDTH
    imagenet: bool = False

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise InputError(f"M-SFANet of width {self.width}; allowed is an even number, the published net has 64")
        if self.imagenet and self.width != PUBLISHED_WIDTH:
            raise InputError(f"M-SFANet of width {self.width} with ImageNet weights; they fit width 64 only")

    @property
    def name(self) -> str:
        """`m_sfanet` at the published width, `m_sfanet-8` at width 8."""
        return "m_sfanet" if self.width == PUBLISHED_WIDTH else f"m_sfanet-{self.width}"

    def build(self, channels: int) -> nn.Module:
        """A net with fresh weights, drawn from torch's default generator: the caller seeds it.

        Raises InputError if ImageNet weights are wanted and their file is missing or damaged.
        """
        net = DualPath(channels, self.width)
        if self.imagenet:
            net.vgg.load_state_dict(_imagenet_features())
        return net


class DualPath(nn.Module):
    """Images (B, C, H, W), normalised, H and W multiples of 16 → density and attention maps (B, 1, H/2, W/2) each.

    The density has no bound, attention lies in (0, 1). In training a batch needs two images at least.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.vgg = _front_end(channels, w)
        self.context = Context(8 * w)
        self.aspp = ASPP(8 * w, [6, 12, 18], 4 * w)
        self.density_path, self.attention_path = Decoder(w), Decoder(w)
        self.attention = nn.Sequential(_conv(w // 2, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.density = _conv(w // 2, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        taps, x = [], images
        for number, layer in enumerate(self.vgg):
            x = layer(x)
            if number in _TAPS:
                taps.append(x)
        half, quarter, eighth, sixteenth = taps
        scales = half, quarter, self.context(eighth), self.aspp(sixteenth)
        attention = self.attention(self.attention_path(*scales))
        return self.density(attention * self.density_path(*scales)), attention


class Context(nn.Module):
    """CAN: means over 1, 4, 9 and 36 parts of the image, weighted at each pixel by how they differ from it.

    s_k = upsampled means, w_k = sigmoid(conv(x − s_k)); out = ReLU(conv([Σ w_k·s_k / Σ w_k, x])): (B, C, H, W) → same.
    """

    SCALES = (1, 2, 3, 6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.means = nn.ModuleList(_conv(channels, channels, 1, bias=False) for _ in self.SCALES)
        self.contrast = _conv(channels, channels, 1)
        self.join = _conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weighted, total = torch.zeros_like(x), torch.zeros_like(x)
        for scale, conv in zip(self.SCALES, self.means, strict=True):
            mean = _resized(conv(F.adaptive_avg_pool2d(x, scale)), x)
            weight = torch.sigmoid(self.contrast(x - mean))
            weighted, total = weighted + weight * mean, total + weight
        return F.relu(self.join(torch.cat([weighted / total, x], dim=1)))


class Decoder(nn.Module):
    """From the four scales of the front end to features (B, width/2, H/2, W/2)."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.to_eighth = nn.Sequential(*_block(12 * w, 4 * w, 1), *_block(4 * w, 4 * w, 3))
        self.to_quarter = nn.Sequential(*_block(12 * w, 2 * w, 1), *_block(2 * w, 2 * w, 3))
        self.to_half = nn.Sequential(*_block(4 * w, w, 1), *_block(w, w, 3), *_block(w, w // 2, 3))

    def forward(self, half: Tensor, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        x = self.to_eighth(torch.cat([_resized(sixteenth, eighth), eighth], dim=1))
        x = self.to_quarter(torch.cat([_resized(x, quarter), quarter, _resized(sixteenth, quarter)], dim=1))
        return self.to_half(torch.cat([_resized(x, half), half], dim=1))  # type: ignore[no-any-return]


_TAPS = (12, 22, 32, 42)
"""Where the last ReLU of each of VGG's stages 2 to 5 stands; its last pooling is not used."""


def _front_end(channels: int, w: int) -> nn.Sequential:
    stages = [w, w, "M", 2 * w, 2 * w, "M", *[4 * w] * 3, "M", *[8 * w] * 3, "M", *[8 * w] * 3]
    layers: nn.Sequential = make_layers(stages, batch_norm=True)
    if channels != 3:
        layers[0] = nn.Conv2d(channels, w, kernel_size=3, padding=1)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layers


def _block(channels_in: int, channels: int, size: int) -> tuple[nn.Module, ...]:
    return _conv(channels_in, channels, size), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _conv(channels_in: int, channels: int, size: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


@cache
def _imagenet_features() -> dict[str, Tensor]:
    """The convolutions of torchvision's VGG-16 with batch norm."""
    state = imagenet_weights(IMAGENET_FILE, "VGG16_BN_Weights.IMAGENET1K_V1")
    return {name.removeprefix("features."): tensor for name, tensor in state.items() if name.startswith("features.")}

"""M-SFANet, the teacher of crowd counting: VGG-16, context at several scales, decoders for density and attention.

Layers of the front end are numbered as torchvision's `vgg16_bn().features`, so that its ImageNet weights fit;
`AUTHORS_NAMES` are those of the authors' checkpoints. Not included: M-SegNet, with which the paper averages its best
figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP  # type: ignore[import-untyped]
from torchvision.models.vgg import make_layers  # type: ignore[import-untyped]

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.models.backbones.pretrained import load_imagenet_weights

PUBLISHED_WIDTH = 64
STRIDE = 16
"""The height and width of images are multiples of this many pixels."""

IMAGENET_FILE = "vgg16_bn-6c64b313.pth"
"""torchvision's VGG16_BN_Weights.IMAGENET1K_V1; the name ends in the first digits of the file's SHA-256."""


@dataclass(frozen=True)
class MSFANet:
    """Settings of an M-SFANet with `width`·(1, 2, 4, 8) channels at strides 1 to 8.

    `imagenet` initialises its VGG-16 with ImageNet weights.
    Raises InputError for a width that is odd or below 2, and for ImageNet weights at any width but 64.
    """

    width: int = PUBLISHED_WIDTH
    imagenet: bool = False

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.width < 2 or self.width % 2:
            raise InputError(f"M-SFANet of width {self.width}; allowed is an even number, the published net has 64")
        if self.imagenet and self.width != PUBLISHED_WIDTH:
            raise InputError(f"M-SFANet of width {self.width} with ImageNet weights; they fit width 64 only")

    @property
    def name(self) -> str:
        """`m_sfanet` at the published width, `m_sfanet-8` at width 8."""
        return "m_sfanet" if self.width == PUBLISHED_WIDTH else f"m_sfanet-{self.width}"

    def build(self, channels: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds.

        Raises InputError if ImageNet weights are asked for and their file is missing or damaged.
        """
        net = DualPath(channels, self.width)
        if self.imagenet:
            net.vgg.load_state_dict(_load_imagenet_features())
        return net


class DualPath(nn.Module):
    """M-SFANet: normalised images (B, C, H, W) → density and attention maps, (B, 1, H/2, W/2) each.

    H and W are multiples of 16. Density is unbounded, attention lies in (0, 1). Training needs batches of two images
    or more, for batch norm after global pooling. 22,904,388 parameters at width 64 with three input channels.
    Source: Thanasutives et al. 2020, section III; CAN: Liu et al. 2019, equations 1 to 5; ASPP: Chen et al. 2017.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        w = width
        self.vgg = _make_front_end(channels, w)
        self.context = Context(8 * w)
        self.aspp = ASPP(8 * w, [6, 12, 18], 4 * w)
        self.density_path, self.attention_path = Decoder(w), Decoder(w)
        self.attention = nn.Sequential(_make_conv(w // 2, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())
        self.density = _make_conv(w // 2, 1, 1)

    def expect_authors_state(self) -> dict[str, Tensor]:
        """Return the state of this net under the names of the authors' checkpoints, with a norm that they never use."""
        state = {_to_authors_name(name): tensor for name, tensor in self.state_dict().items()}
        unused = nn.BatchNorm2d(1).state_dict()
        return state | {f"{AUTHORS_UNUSED}.{name}": tensor for name, tensor in unused.items()}

    def rename_authors_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of an authors' checkpoint under the names of this net, without the norm it does not use."""
        return {name: state[_to_authors_name(name)] for name in self.state_dict()}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return density and attention maps, (B, 1, H/2, W/2) each, of images (B, C, H, W)."""
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
    """CAN: means over 1, 4, 9 and 36 cells of the image, weighted at each pixel by their contrast with it.

    s_k = upsampled means, w_k = sigmoid(conv(x − s_k)), out = ReLU(conv([Σ w_k·s_k / Σ w_k, x])).
    (B, C, H, W) → (B, C, H, W). Means are upsampled with align_corners=False, unlike all else in M-SFANet, as in the
    authors' code. Source: Liu et al. 2019, equations 1 to 5.
    """

    SCALES = (1, 2, 3, 6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.means = nn.ModuleList(_make_conv(channels, channels, 1, bias=False) for _ in self.SCALES)
        self.contrast = _make_conv(channels, channels, 1)
        self.join = _make_conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weighted, total = torch.zeros_like(x), torch.zeros_like(x)
        for scale, conv in zip(self.SCALES, self.means, strict=True):
            mean = F.interpolate(conv(F.adaptive_avg_pool2d(x, scale)), size=x.shape[-2:], mode="bilinear")
            weight = torch.sigmoid(self.contrast(x - mean))
            weighted, total = weighted + weight * mean, total + weight
        return F.relu(self.join(torch.cat([weighted / total, x], dim=1)))


class Decoder(nn.Module):
    """Features at strides 2, 4, 8 and 16 of the image → features (B, w/2, H/2, W/2).

    Inputs have 2w, 4w, 8w and 4w channels.
    """

    def __init__(self, w: int) -> None:
        super().__init__()
        self.to_eighth = nn.Sequential(*_make_block(12 * w, 4 * w, 1), *_make_block(4 * w, 4 * w, 3))
        self.to_quarter = nn.Sequential(*_make_block(12 * w, 2 * w, 1), *_make_block(2 * w, 2 * w, 3))
        self.to_half = nn.Sequential(*_make_block(4 * w, w, 1), *_make_block(w, w, 3), *_make_block(w, w // 2, 3))

    def forward(self, half: Tensor, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        x = self.to_eighth(torch.cat([_resize_like(sixteenth, eighth), eighth], dim=1))
        x = self.to_quarter(torch.cat([_resize_like(x, quarter), quarter, _resize_like(sixteenth, quarter)], dim=1))
        return self.to_half(torch.cat([_resize_like(x, half), half], dim=1))  # type: ignore[no-any-return]


def _list_authors_names() -> dict[str, str]:
    """Return the name of each layer with weights, from ours to that of the authors' checkpoints."""
    stages = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3")
    convs = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    names = {f"vgg.{place}": f"vgg.conv{stage}.conv" for place, stage in zip(convs, stages, strict=True)}
    names |= {f"vgg.{place + 1}": f"vgg.conv{stage}.bn" for place, stage in zip(convs, stages, strict=True)}
    names |= {f"context.means.{scale}": f"spm.can.scales.{scale}.1" for scale in range(4)}
    names |= {"context.contrast": "spm.can.weight_net", "context.join": "spm.can.bottleneck"}
    names |= {f"aspp.convs.{rate}.0": f"spm.assp.aspp{rate + 1}.atrous_conv" for rate in range(4)}
    names |= {f"aspp.convs.{rate}.1": f"spm.assp.aspp{rate + 1}.bn" for rate in range(4)}
    names |= {f"aspp.convs.4.{layer}": f"spm.assp.global_avg_pool.{layer}" for layer in (1, 2)}
    names |= {"aspp.project.0": "spm.assp.conv1", "aspp.project.1": "spm.assp.bn1"}
    blocks = ("to_eighth.0", "to_eighth.3", "to_quarter.0", "to_quarter.3", "to_half.0", "to_half.3", "to_half.6")
    for ours, theirs in (("density_path", "dmp"), ("attention_path", "amp")):
        for number, block in enumerate(blocks, 1):
            part, place = block.split(".")
            names[f"{ours}.{block}"] = f"{theirs}.conv{number}.conv"
            names[f"{ours}.{part}.{int(place) + 1}"] = f"{theirs}.conv{number}.bn"
    return names | {"attention.0": "conv_att.conv", "attention.1": "conv_att.bn", "density": "conv_out.conv"}


AUTHORS_NAMES = _list_authors_names()
AUTHORS_UNUSED = "conv_out.bn"
"""A batch norm that the authors' checkpoints contain and their net does not use."""


def _to_authors_name(name: str) -> str:
    """Return the authors' name of a tensor: "density.weight" → "conv_out.conv.weight"."""
    layer, _, tensor = name.rpartition(".")
    return f"{AUTHORS_NAMES[layer]}.{tensor}"


_TAPS = (12, 22, 32, 42)
"""Positions of the last ReLU of VGG's stages 2 to 5; its last pooling is not used."""


def _make_front_end(channels: int, w: int) -> nn.Sequential:
    stages = [w, w, "M", 2 * w, 2 * w, "M", *[4 * w] * 3, "M", *[8 * w] * 3, "M", *[8 * w] * 3]
    layers: nn.Sequential = make_layers(stages, batch_norm=True)
    if channels != 3:
        layers[0] = nn.Conv2d(channels, w, kernel_size=3, padding=1)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layers


def _make_block(channels_in: int, channels: int, size: int) -> tuple[nn.Module, ...]:
    return _make_conv(channels_in, channels, size), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _make_conv(channels_in: int, channels: int, size: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _resize_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


@cache
def _load_imagenet_features() -> dict[str, Tensor]:
    """Return the state of the convolutional part of torchvision's VGG-16 with batch norm."""
    state = load_imagenet_weights(IMAGENET_FILE, "VGG16_BN_Weights.IMAGENET1K_V1")
    return {name.removeprefix("features."): tensor for name, tensor in state.items() if name.startswith("features.")}

"""Face super-resolution on features of a frozen VGG-19; the teacher adds a dictionary of face components.

Not included: the adversarial losses on images with which the published net was trained. small_sr.py applies the same
idea to small images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import LOCATION
from study.space.domains import is_unresolved
from trainables.models.backbones.pretrained import make_weights_folder_absolute
from trainables.models.backbones.vgg19 import BEFORE_RELU, Vgg19
from trainables.models.sr.common import COMPONENTS, SROutput, upsample_bicubic
from trainables.models.sr.component_transfer import ComponentTransfer, Dictionary, DictionaryPart, SelfTransfer

STRIDES = (2, 4, 8, 16)
"""Strides of the encoder's taps. The height and width of full-size images are multiples of the last."""

CHANNELS = (128, 256, 512, 512)
DILATIONS = (4, 3, 2, 1)
PUBLISHED_SIZES = (40, 40, 24, 56)
"""Side of the components in pixels of a 256-pixel image; half of what is published for 512 pixels."""


@dataclass(frozen=True)
class VggSR:
    """Settings of a VggNet: the student without atoms, the teacher with `atoms` for each component and resolution.

    `control` gives the student the teacher's size: layers of the same shapes, without atoms. `imagenet=False` leaves
    VGG-19 at random values, for a net whose own weights are loaded next.
    Raises InputError for a number of atoms below 0, for atoms in a control, or sizes that are not four even numbers.
    """

    atoms: int = 0
    sizes: tuple[int, int, int, int] = PUBLISHED_SIZES
    """Side of the atoms of left eye, right eye, nose and mouth, in pixels of the full-size image."""
    imagenet: bool = True
    imagenet_folder: Path | None = field(default=None, metadata=LOCATION)
    """The folder of the file of ImageNet weights; by default torchvision's."""
    control: bool = False
    """Whether features pass the layers that weigh atoms, as residual blocks: a net of the teacher's size without atoms,
    so that a lead of the teacher is the dictionary's or is not."""

    def __post_init__(self) -> None:
        make_weights_folder_absolute(self)
        if is_unresolved(self):
            return
        check_dictionary_size(self.atoms, self.sizes, 2)
        if self.control and self.atoms:
            raise InputError(f"a control with {self.atoms} atoms; allowed are 0: it stands for the net without them")

    @property
    def name(self) -> str:
        """`vgg_sr` without a dictionary, `vgg_sr-32atoms` with one, `vgg_sr-control` for the control."""
        return "vgg_sr" + (f"-{self.atoms}atoms" if self.atoms else "") + ("-control" if self.control else "")

    def build(self, scale: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds.

        The caller also fills its dictionary.
        Raises InputError if ImageNet weights are asked for and their file is missing or damaged.
        """
        vgg = Vgg19(tuple(BEFORE_RELU.values()))
        if self.imagenet:
            vgg.load_imagenet(self.imagenet_folder)
        return VggNet(vgg, scale, _make_parts(self.atoms, self.sizes), self.control)


class VggNet(nn.Module):
    """VGG-19 features of the upsampled image, dilated convolutions, and a decoder that the features modulate.

    Images (B, 3, h, w) in [0, 1] and, with a dictionary, boxes (B, 4, 4) → SROutput with features (B, 64, H, W). A
    dictionary improves the features that modulate the decoder. 69.7 million parameters, 49.6 of them trained; with a
    dictionary, or as its control, 113.3 and 93.3.
    Source: Li et al. 2020, section 3, at half its image and component sizes; sizes of atoms are rounded up.
    """

    def __init__(self, vgg: Vgg19, scale: int, parts: list[DictionaryPart], control: bool = False) -> None:
        super().__init__()
        self.vgg, self.scale = vgg, scale
        self.dictionary = Dictionary(parts) if parts else None
        pairs = zip(CHANNELS, STRIDES, strict=True)
        self.transfers = nn.ModuleList(ComponentTransfer(*pair) for pair in pairs if parts)
        self.refinements = nn.ModuleList(SelfTransfer(channels) for channels in CHANNELS if control)
        self.dilated = Dilated(CHANNELS[-1])
        self.ups = nn.ModuleList(
            ModulatedUp(*channels) for channels in ((512, 512, 512), (512, 256, 512), (256, 128, 256), (128, 64, 128))
        )
        self.last = nn.Sequential(_conv3x3(64, 64), nn.LeakyReLU(0.2), Residual(64), Residual(64))
        self.rgb = _conv3x3(64, 3)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        """Return images (B, 3, H, W) and features (B, 64, H, W) of small images (B, 3, h, w).

        Raises InputError for a dictionary that is empty, or that gets no boxes.
        """
        with torch.no_grad():
            taps = self.vgg(upsample_bicubic(low, self.scale))
        x = self.dilated(taps[-1])
        if self.dictionary is not None:
            taps = self._transfer_components(taps, self.dictionary, boxes)
        if self.refinements:
            taps = [refine(tap) for refine, tap in zip(self.refinements, taps, strict=True)]
        for up, tap in zip(self.ups, reversed(taps), strict=True):
            x = up(x, tap)
        features = self.last(x)
        return SROutput((torch.tanh(self.rgb(features)) + 1) / 2, features)

    def _transfer_components(self, taps: list[Tensor], dictionary: Dictionary, boxes: Tensor | None) -> list[Tensor]:
        boxes = check_boxes(boxes, dictionary)
        parts = dictionary.parts
        return [
            transfer(tap, boxes, [dictionary.atoms(part) for part in parts if part.tap == number])
            for number, (transfer, tap) in enumerate(zip(self.transfers, taps, strict=True))
        ]


class Dilated(nn.Module):
    """x + conv of four branches, each of two convolutions of one dilation: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_conv3x3(channels, channels, step), nn.LeakyReLU(0.2), _conv3x3(channels, channels, step))
            for step in DILATIONS
        )
        self.join = _conv3x3(len(DILATIONS) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.join(torch.cat([branch(x) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


class ModulatedUp(nn.Module):
    """Blur, convolve, modulate as x·factor(style) + shift(style), upsample.

    (B, C, H, W), style (B, S, H, W) → (B, C', 2H, 2W). Source: spatial feature transform, Wang et al. 2018.
    """

    def __init__(self, channels_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv3x3(channels_in, channels), nn.LeakyReLU(0.2))
        self.factor = nn.Sequential(_conv3x3(style, channels), nn.LeakyReLU(0.2), _conv3x3(channels, channels))
        self.shift = nn.Sequential(
            _conv3x3(style, channels), nn.LeakyReLU(0.2), _conv3x3(channels, channels), nn.Sigmoid()
        )
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), _conv3x3(channels, channels), nn.LeakyReLU(0.2)
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.conv(blur(x))
        return self.up(x * self.factor(style) + self.shift(style))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """x + conv(LeakyReLU(conv(x))): (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv3x3(channels, channels), nn.LeakyReLU(0.2), _conv3x3(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def blur(x: Tensor) -> Tensor:
    """Filter each channel with (1, 2, 1)/4 in both directions, edges replicated: (B, C, H, W) → (B, C, H, W)."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


def check_boxes(boxes: Tensor | None, dictionary: Dictionary) -> Tensor:
    """Return the boxes for a net with a dictionary. Raises InputError without boxes or with an empty dictionary."""
    if boxes is None:
        raise InputError("this net has a dictionary and needs the boxes of face components, which these data lack")
    dictionary.check_filled()
    return boxes


def check_dictionary_size(atoms: int, sizes: tuple[int, ...], multiple: int) -> None:
    """Raise InputError unless `atoms` is at least 0 and `sizes` are four positive multiples of `multiple` pixels."""
    if atoms < 0 or len(sizes) != len(COMPONENTS) or any(size < multiple or size % multiple for size in sizes):
        raise InputError(
            f"dictionary of {atoms} atoms of sizes {sizes}; allowed are 0 atoms or more and four sizes, each a "
            f"multiple of {multiple} pixels"
        )


def _make_parts(atoms: int, sizes: tuple[int, ...]) -> list[DictionaryPart]:
    """Return a part for each component at each tap; none without atoms."""
    taps = enumerate(zip(BEFORE_RELU, STRIDES, CHANNELS, strict=True))
    return [
        # sizes are rounded up: a single pixel has no standard deviation
        DictionaryPart(
            f"{name}_{layer}", component, tap, stride, (atoms, channels, -(-size // stride), -(-size // stride))
        )
        for tap, (layer, stride, channels) in taps
        for component, (name, size) in enumerate(zip(COMPONENTS, sizes, strict=True))
        if atoms
    ]


def _conv3x3(channels_in: int, channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=dilation, dilation=dilation)

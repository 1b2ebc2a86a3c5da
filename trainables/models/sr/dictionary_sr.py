"""Faces from a frozen VGG-19's view of them: an encoder-decoder, as a teacher with a dictionary of face components.

Left out: the adversarial losses on images with which the published net was trained. small_sr.py is the same idea for
small images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import LOCATION
from trainables.models.backbones.vgg19 import BEFORE_RELU, Vgg19
from trainables.models.sr.common import SROutput, upsample_bicubic
from trainables.models.sr.component_transfer import COMPONENTS, ComponentTransfer, Dictionary, Part

STRIDES = (2, 4, 8, 16)
"""Of the encoder's taps. Height and width of full-size images are multiples of the last."""

CHANNELS = (128, 256, 512, 512)
DILATIONS = (4, 3, 2, 1)
PUBLISHED_SIZES = (40, 40, 24, 56)
"""Pixels at each side of the eyes, the nose and the mouth in images of 256 pixels; twice that was published for 512."""


@dataclass(frozen=True)
class VggSR:
    """VGG-19, dilated convolutions, and a decoder modulated by VGG's features: a student; with `atoms` a teacher.

    So many atoms of each of 4 components at each of 4 resolutions improve the features that modulate the decoder.
    `imagenet=False` leaves VGG at random values, for a net whose own weights follow.
    Raises InputError for a number of atoms below 0, or sizes that are not four even numbers.
    Source: Li et al. 2020, section 3, with half its image and component sizes; those of atoms are rounded up.
    """

    atoms: int = 0
    sizes: tuple[int, int, int, int] = PUBLISHED_SIZES
    """Of the atoms of left eye, right eye, nose and mouth, in pixels of the full-size image."""
    imagenet: bool = True
    imagenet_folder: Path | None = field(default=None, metadata=LOCATION)
    """Where the file of ImageNet weights lies, if not where torchvision keeps it."""

    def __post_init__(self) -> None:
        require_dictionary(self.atoms, self.sizes, 2)
        if self.imagenet_folder is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "imagenet_folder", Path(self.imagenet_folder).expanduser().resolve())

    @property
    def name(self) -> str:
        """`vgg_sr` without a dictionary, `vgg_sr-32atoms` with one."""
        return "vgg_sr" + (f"-{self.atoms}atoms" if self.atoms else "")

    def build(self, scale: int) -> nn.Module:
        """A net with fresh weights from torch's default generator: the caller seeds it, and fills its dictionary.

        Raises InputError if ImageNet weights are wanted and their file is missing or damaged.
        """
        vgg = Vgg19(tuple(BEFORE_RELU.values()))
        if self.imagenet:
            vgg.load_imagenet(self.imagenet_folder)
        return VggNet(vgg, scale, _parts(self.atoms, self.sizes))


class VggNet(nn.Module):
    """Images (B, 3, h, w) in [0, 1], with a dictionary also boxes (B, 4, 4) → Restored, features of 64 channels."""

    def __init__(self, vgg: Vgg19, scale: int, parts: list[Part]) -> None:
        super().__init__()
        self.vgg, self.scale = vgg, scale
        self.dictionary = Dictionary(parts) if parts else None
        pairs = zip(CHANNELS, STRIDES, strict=True)
        self.transfers = nn.ModuleList(ComponentTransfer(*pair) for pair in pairs if parts)
        self.dilated = Dilated(CHANNELS[-1])
        self.ups = nn.ModuleList(
            ModulatedUp(*channels) for channels in ((512, 512, 512), (512, 256, 512), (256, 128, 256), (128, 64, 128))
        )
        self.last = nn.Sequential(_conv(64, 64), nn.LeakyReLU(0.2), Residual(64), Residual(64))
        self.rgb = _conv(64, 3)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        with torch.no_grad():
            taps = self.vgg(upsample_bicubic(low, self.scale))
        x = self.dilated(taps[-1])
        if self.dictionary is not None:
            taps = self._improved(taps, self.dictionary, boxes)
        for up, tap in zip(self.ups, reversed(taps), strict=True):
            x = up(x, tap)
        features = self.last(x)
        return SROutput((torch.tanh(self.rgb(features)) + 1) / 2, features)

    def _improved(self, taps: list[Tensor], dictionary: Dictionary, boxes: Tensor | None) -> list[Tensor]:
        boxes = required(boxes, dictionary)
        parts = dictionary.parts
        return [
            transfer(tap, boxes, [dictionary.atoms(part) for part in parts if part.tap == number])
            for number, (transfer, tap) in enumerate(zip(self.transfers, taps, strict=True))
        ]


class Dilated(nn.Module):
    """x + convolution of four views of x, each by two convolutions of one dilation: (B, C, H, W) → same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_conv(channels, channels, step), nn.LeakyReLU(0.2), _conv(channels, channels, step))
            for step in DILATIONS
        )
        self.join = _conv(len(DILATIONS) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.join(torch.cat([branch(x) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


class ModulatedUp(nn.Module):
    """Blurred, convolved, x·factor(style) + shift(style), enlarged: (B, C, H, W), style (B, S, H, W) → (B, C', 2H, 2W).

    Source: spatial feature transform, Wang et al. 2018.
    """

    def __init__(self, channels_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(channels_in, channels), nn.LeakyReLU(0.2))
        self.factor = nn.Sequential(_conv(style, channels), nn.LeakyReLU(0.2), _conv(channels, channels))
        self.shift = nn.Sequential(_conv(style, channels), nn.LeakyReLU(0.2), _conv(channels, channels), nn.Sigmoid())
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), _conv(channels, channels), nn.LeakyReLU(0.2)
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.conv(blurred(x))
        return self.up(x * self.factor(style) + self.shift(style))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """x + two convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), nn.LeakyReLU(0.2), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def blurred(x: Tensor) -> Tensor:
    """Each channel with the binomial kernel (1, 2, 1)/4 in both directions, edges repeated: (B, C, H, W) → same."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


def required(boxes: Tensor | None, dictionary: Dictionary) -> Tensor:
    """The boxes that a net with a dictionary reads. Raises InputError if there are none, or nothing to put there."""
    if boxes is None:
        raise InputError("this net has a dictionary and needs the boxes of face components, which these data lack")
    dictionary.require_full()
    return boxes


def require_dictionary(atoms: int, sizes: tuple[int, ...], multiple: int) -> None:
    """Raises InputError unless there are 0 or more atoms, for four components of so many multiples of pixels."""
    if atoms < 0 or len(sizes) != len(COMPONENTS) or any(size < multiple or size % multiple for size in sizes):
        raise InputError(
            f"dictionary of {atoms} atoms of sizes {sizes}; allowed are 0 atoms or more, and four sizes that are "
            f"multiples of {multiple} pixels"
        )


def _parts(atoms: int, sizes: tuple[int, ...]) -> list[Part]:
    """A part for each component at each tap; none without atoms."""
    taps = enumerate(zip(BEFORE_RELU, STRIDES, CHANNELS, strict=True))
    return [
        # rounded up: of one pixel there is no deviation
        Part(f"{name}_{layer}", component, tap, stride, (atoms, channels, -(-size // stride), -(-size // stride)))
        for tap, (layer, stride, channels) in taps
        for component, (name, size) in enumerate(zip(COMPONENTS, sizes, strict=True))
        if atoms
    ]


def _conv(channels_in: int, channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=dilation, dilation=dilation)

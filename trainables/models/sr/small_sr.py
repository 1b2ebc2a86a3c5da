"""Faces of some 64 pixels: an encoder-decoder that learns all of itself, as a teacher with a dictionary of components.

It is dictionary_sr.py without VGG-19. Atoms are patches of images, which the net's own encoder sees anew at each step:
they live in the same feature space as the faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from trainables.models.sr.common import SROutput, upsample_bicubic
from trainables.models.sr.component_transfer import COMPONENTS, ComponentTransfer, Dictionary, Part
from trainables.models.sr.dictionary_sr import require_dictionary, required

STRIDE = 8
"""Height and width of full-size images are multiples of it."""

SIZES = (16, 16, 16, 24)


@dataclass(frozen=True)
class SmallSR:
    """Three halvings of the bicubic image with width·(1, 2, 4) channels and three doublings; with `atoms` a teacher.

    So many patches of each of 4 components improve what the decoder sees at 1/2 and 1/4 of the size.
    Raises InputError for a width below 1, a number of atoms below 0, or sizes that are not four multiples of 8.
    """

    width: int = 16
    atoms: int = 0
    sizes: tuple[int, int, int, int] = SIZES
    """Of the patches of left eye, right eye, nose and mouth, in pixels of the full-size image."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"SmallSR of width {self.width}; allowed is 1 or more")
        require_dictionary(self.atoms, self.sizes, 8)

    @property
    def name(self) -> str:
        """`small_sr-16` at width 16 without a dictionary, `small_sr-16-8atoms` with one."""
        return f"small_sr-{self.width}" + (f"-{self.atoms}atoms" if self.atoms else "")

    def build(self, scale: int) -> nn.Module:
        """As `VggSR.build`, with fresh weights only."""
        named = enumerate(zip(COMPONENTS, self.sizes, strict=True))
        parts = [Part(name, number, None, 1, (self.atoms, 3, size, size)) for number, (name, size) in named]
        return SmallNet(self.width, scale, parts if self.atoms else [])


class SmallNet(nn.Module):
    """Images (B, 3, h, w) in [0, 1], with a dictionary also boxes (B, 4, 4) → Restored, features (B, width, H, W)."""

    def __init__(self, width: int, scale: int, parts: list[Part]) -> None:
        super().__init__()
        w = width
        self.scale = scale
        self.to_half = nn.Sequential(_block(3, w), _block(w, w, 2))
        self.to_quarter = nn.Sequential(_block(w, 2 * w, 2), _block(2 * w, 2 * w))
        self.to_eighth = nn.Sequential(_block(2 * w, 4 * w, 2), _block(4 * w, 4 * w), _block(4 * w, 4 * w))
        self.from_eighth, self.from_quarter, self.from_half = _block(4 * w, 2 * w), _block(4 * w, w), _block(2 * w, w)
        self.last = nn.Sequential(_block(w, w), nn.Conv2d(w, w, kernel_size=3, padding=1))
        self.rgb = nn.Conv2d(w, 3, kernel_size=3, padding=1)
        self.dictionary = Dictionary(parts) if parts else None
        self.transfers = nn.ModuleList(ComponentTransfer(*pair) for pair in ((w, 2), (2 * w, 4)) if parts)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        image = upsample_bicubic(low, self.scale)
        half, quarter = self._encoded(image)
        x = _doubled(self.from_eighth(self.to_eighth(quarter)))
        if self.dictionary is not None:
            half, quarter = self._improved((half, quarter), self.dictionary, boxes)
        x = _doubled(self.from_quarter(torch.cat([x, quarter], dim=1)))
        x = _doubled(self.from_half(torch.cat([x, half], dim=1)))
        features = self.last(x)
        return SROutput(image + self.rgb(F.leaky_relu(features, 0.2)) / 2, features)

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] at 1/2 and 1/4 of their size."""
        half = self.to_half(2 * images - 1)
        return half, self.to_quarter(half)

    def _improved(self, taps: tuple[Tensor, Tensor], dictionary: Dictionary, boxes: Tensor | None) -> list[Tensor]:
        boxes = required(boxes, dictionary)
        atoms = zip(*(self._encoded(dictionary.atoms(part)) for part in dictionary.parts), strict=True)
        return [
            transfer(tap, boxes, encoded) for transfer, tap, encoded in zip(self.transfers, taps, atoms, strict=True)
        ]


def _block(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, padding=1), nn.LeakyReLU(0.2))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")

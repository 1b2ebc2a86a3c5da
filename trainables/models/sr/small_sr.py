"""Super-resolution of faces of about 64 pixels: dictionary_sr.py with an encoder that is trained instead of VGG-19.

Atoms are image patches that the net encodes at each step, so that they share the faces' feature space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.space.domains import is_unresolved
from trainables.models.sr.common import COMPONENTS, SROutput, upsample_bicubic
from trainables.models.sr.component_transfer import ComponentTransfer, Dictionary, DictionaryPart
from trainables.models.sr.dictionary_sr import check_boxes, check_dictionary_size

STRIDE = 8
"""The height and width of full-size images are multiples of this many pixels."""

SIZES = (16, 16, 16, 24)
"""Side of the patches of COMPONENTS, in pixels of a 64-pixel image."""


@dataclass(frozen=True)
class SmallSR:
    """Settings of a SmallNet: the student without atoms, the teacher with `atoms` for each component.

    Raises InputError for a width below 1, a number of atoms below 0, or sizes that are not four multiples of 8.
    """

    width: int = 16
    atoms: int = 0
    sizes: tuple[int, int, int, int] = SIZES
    """Side of the patches of left eye, right eye, nose and mouth, in pixels of the full-size image."""

    def __post_init__(self) -> None:
        if is_unresolved(self):
            return
        if self.width < 1:
            raise InputError(f"SmallSR of width {self.width}; allowed is 1 or more")
        check_dictionary_size(self.atoms, self.sizes, 8)

    @property
    def name(self) -> str:
        """`small_sr-16` at width 16 without a dictionary, `small_sr-16-8atoms` with one."""
        return f"small_sr-{self.width}" + (f"-{self.atoms}atoms" if self.atoms else "")

    def build(self, scale: int) -> nn.Module:
        """Return a net with fresh weights, drawn from torch's default generator, which the caller seeds.

        The caller also fills its dictionary.
        """
        named = enumerate(zip(COMPONENTS, self.sizes, strict=True))
        parts = [DictionaryPart(name, number, None, 1, (self.atoms, 3, size, size)) for number, (name, size) in named]
        return SmallNet(self.width, scale, parts if self.atoms else [])


class SmallNet(nn.Module):
    """Encoder-decoder on the bicubic image: three halvings with width·(1, 2, 4) channels, three doublings.

    Images (B, 3, h, w) in [0, 1] and, with a dictionary, boxes (B, 4, 4) → SROutput with features (B, width, H, W). A
    dictionary improves the skip connections at 1/2 and 1/4 of the size. 146,403 parameters at width 16, 238,947 with a
    dictionary. Source: this project's own design.
    """

    def __init__(self, width: int, scale: int, parts: list[DictionaryPart]) -> None:
        super().__init__()
        w = width
        self.scale = scale
        self.to_half = nn.Sequential(_make_block(3, w), _make_block(w, w, 2))
        self.to_quarter = nn.Sequential(_make_block(w, 2 * w, 2), _make_block(2 * w, 2 * w))
        self.to_eighth = nn.Sequential(
            _make_block(2 * w, 4 * w, 2), _make_block(4 * w, 4 * w), _make_block(4 * w, 4 * w)
        )
        self.from_eighth, self.from_quarter, self.from_half = (
            _make_block(4 * w, 2 * w),
            _make_block(4 * w, w),
            _make_block(2 * w, w),
        )
        self.last = nn.Sequential(_make_block(w, w), nn.Conv2d(w, w, kernel_size=3, padding=1))
        self.rgb = nn.Conv2d(w, 3, kernel_size=3, padding=1)
        self.dictionary = Dictionary(parts) if parts else None
        self.transfers = nn.ModuleList(ComponentTransfer(*pair) for pair in ((w, 2), (2 * w, 4)) if parts)

    def forward(self, low: Tensor, boxes: Tensor | None = None) -> SROutput:
        """Return images (B, 3, H, W) and features (B, width, H, W) of small images (B, 3, h, w).

        Raises InputError for a dictionary that is empty, or that gets no boxes.
        """
        image = upsample_bicubic(low, self.scale)
        half, quarter = self._encode(image)
        x = _upsample_2x(self.from_eighth(self.to_eighth(quarter)))
        if self.dictionary is not None:
            half, quarter = self._transfer_components((half, quarter), self.dictionary, boxes)
        x = _upsample_2x(self.from_quarter(torch.cat([x, quarter], dim=1)))
        x = _upsample_2x(self.from_half(torch.cat([x, half], dim=1)))
        features = self.last(x)
        return SROutput(image + self.rgb(F.leaky_relu(features, 0.2)) / 2, features)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) in [0, 1]: (B, width, H/2, W/2) and (B, 2·width, H/4, W/4)."""
        half = self.to_half(2 * images - 1)
        return half, self.to_quarter(half)

    def _transfer_components(
        self, taps: tuple[Tensor, Tensor], dictionary: Dictionary, boxes: Tensor | None
    ) -> list[Tensor]:
        boxes = check_boxes(boxes, dictionary)
        atoms = zip(*(self._encode(dictionary.atoms(part)) for part in dictionary.parts), strict=True)
        return [
            transfer(tap, boxes, encoded) for transfer, tap, encoded in zip(self.transfers, taps, atoms, strict=True)
        ]


def _make_block(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, stride, padding=1), nn.LeakyReLU(0.2))


def _upsample_2x(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")

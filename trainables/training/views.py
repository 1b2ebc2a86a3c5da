"""Augmentation as a finite set of numbered views, drawn as a pure function of (seed, epoch, sample).

Since views can be enumerated, a teacher's outputs can be stored once for each; since a draw depends on nothing but
these three numbers, every trial sees the same views on any machine and in any batch order. random_views.py has those of
continuous settings, mixing.py those that mix images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError


class Views(ABC):
    """A finite, enumerable set of augmentations; view 0 is the untouched image."""

    draws_untouched: ClassVar[bool] = True
    """Whether view 0 is drawn, too."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of views, including view 0."""

    def draw(self, seed: int, epoch: int, samples: Tensor) -> Tensor:
        """Draw each sample's view uniformly, independent over seeds, epochs and samples: (B,) → (B,) int64."""
        first = 0 if self.draws_untouched else 1
        return first + draw_uniform(seed, epoch, samples, self.count - first)


@dataclass(frozen=True)
class CropFlip(Views):
    """Crops of the image's own size from the zero-padded image, with `flip` also mirrored left to right.

    Raises InputError for a padding below 0.
    """

    padding: int
    """Pixels of zeros added at each side."""
    flip: bool

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding of {self.padding} pixels; allowed is 0 (no shift) or more")

    @property
    def count(self) -> int:
        """The number of views: (2·padding + 1)², or twice that with `flip`; view 0 is the untouched image."""
        return self._crops * (2 if self.flip else 1)

    def apply(self, images: Tensor, views: Tensor) -> Tensor:
        """Apply a view to each image: uint8 (B, C, H, W), views (B,) → uint8 (B, C, H, W)."""
        if self.count == 1:
            return images
        batch, channels, height, width = images.shape
        rows, columns = self._source_pixels(views, height, width)
        stride = width + 2 * self.padding
        pixels = (rows[:, :, None] * stride + columns[:, None, :]).reshape(batch, 1, height * width)
        padded = F.pad(images, [self.padding] * 4).flatten(2)
        return padded.gather(2, pixels.expand(-1, channels, -1)).view(images.shape)

    def is_mirrored(self, views: Tensor) -> Tensor:
        """Return which views are mirrored: (B,) → (B,) bool."""
        return views >= self._crops

    def measure_shifts(self, views: Tensor) -> Tensor:
        """Return how far right and down of the image's corner each crop begins, in pixels: (B,) → (B, 2) int64."""
        crop, shifts = self._number_crops(views), 2 * self.padding + 1
        return torch.stack([crop % shifts, crop // shifts], dim=1) - self.padding

    @property
    def _crops(self) -> int:
        return (2 * self.padding + 1) ** 2

    def _number_crops(self, views: Tensor) -> Tensor:
        """Return the number of each view's crop, from the padded image's upper left corner on."""
        # the middle crop leaves the image where it is: numbering of views starts there
        return (views + self._crops // 2) % self._crops

    def _source_pixels(self, views: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the padded image's row of each row (B, H) and its column of each column (B, W) of the views (B,)."""
        shifts = 2 * self.padding + 1
        crop = self._number_crops(views)
        mirrored = self.is_mirrored(views)[:, None]
        column = torch.arange(width, device=views.device)
        rows = (crop // shifts)[:, None] + torch.arange(height, device=views.device)
        columns = (crop % shifts)[:, None] + torch.where(mirrored, width - 1 - column, column)
        return rows, columns


@dataclass(frozen=True)
class GridCrops(Views):
    """Square crops of images of any size, on a rows × columns grid from edge to edge, with `flip` also mirrored.

    View 0 is the complete image; it is never drawn, since images of different sizes cannot form a batch.
    Raises InputError for a size that is odd or below 2, or fewer than one row or column.
    """

    size: int
    """Side length in pixels; even, as are crop positions, so that maps of half the image's size are cropped alike."""
    rows: int
    columns: int
    flip: bool = True

    draws_untouched: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise InputError(f"crops of {self.size} pixels; allowed is an even number, at least 2")
        if self.rows < 1 or self.columns < 1:
            raise InputError(f"{self.rows} × {self.columns} crops; allowed is one row and one column, or more")

    @property
    def count(self) -> int:
        return 1 + self._crops * (2 if self.flip else 1)

    def apply(self, image: Tensor, view: int, stride: int = 1) -> Tensor:
        """Apply a view to an image or a map at 1/`stride` of the image's size.

        (C, H, W) → (C, size/stride, size/stride), or (C, H, W) unchanged for view 0. H, W ≥ size/stride.
        """
        if view == 0:
            return image
        height, width = image.shape[1] * stride, image.shape[2] * stride
        top, left = self.locate_crop(view, height, width)
        side = self.size // stride
        crop = image[:, top // stride :, left // stride :][:, :side, :side]
        return crop.flip(2) if view > self._crops else crop

    def locate_crop(self, view: int, height: int, width: int) -> tuple[int, int]:
        """Return the top row and the left column of a crop in an image of this size, in pixels."""
        row, column = divmod((view - 1) % self._crops, self.columns)
        return _crop_start(row, self.rows, height - self.size), _crop_start(column, self.columns, width - self.size)

    @property
    def _crops(self) -> int:
        return self.rows * self.columns


def _crop_start(index: int, count: int, last: int) -> int:
    """Return where crop `index` of `count` begins: evenly spaced from 0 to `last`, a single one centred; even."""
    return (last * index // (count - 1) if count > 1 else last // 2) // 2 * 2


@dataclass(frozen=True)
class Flips(Views):
    """Two views: 0 is the untouched image, 1 the image mirrored left to right."""

    @property
    def count(self) -> int:
        return 2

    def apply(self, images: Tensor, views: Tensor) -> Tensor:
        """Apply a view to each image: (B, C, H, W), views (B,) → the same shape and dtype."""
        return torch.where(self.is_mirrored(views)[:, None, None, None], images.flip(-1), images)

    def is_mirrored(self, views: Tensor) -> Tensor:
        """Return which views are mirrored: (B,) → (B,) bool."""
        return views == 1


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (images/255 − mean)/std: uint8 (B, C, H, W), mean and std (C,) float32 → float32 (B, C, H, W)."""
    return images.float().div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def denormalise(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Invert `normalise`: float32 (B, C, H, W) → uint8 (B, C, H, W)."""
    means, stds = (torch.tensor(values, device=inputs.device)[:, None, None] for values in (mean, std))
    return inputs.mul(stds).add_(means).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def draw_uniform(seed: int, epoch: int, samples: Tensor, count: int) -> Tensor:
    """Draw a number in [0, count) for each sample: (B,) → (B,) int64."""
    stream = _mix_bits(_mix_bits(torch.tensor(seed)) + epoch)
    return (_mix_bits(stream + samples * _GAMMA) & _LOW_63_BITS) % count


def hash_to_uniform(views: Tensor, stream: int) -> Tensor:
    """Return a number in [0, 1) for each view, uniform and independent over views and streams: (B,) → (B,) float64."""
    bits = _mix_bits(_mix_bits(torch.full_like(views, stream)) + views * _GAMMA)
    return _shift_right(bits, 11).double() * 2.0**-53


# SplitMix64 (Steele, Lea & Flood 2014; constants of Stafford's mix 13) on int64, whose overflow wraps around.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_LOW_63_BITS = 2**63 - 1


def _mix_bits(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FACTORS[0]
    x = (x ^ _shift_right(x, 27)) * _FACTORS[1]
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign, as int64's own shift would."""
    low_bits: int = 2 ** (64 - bits) - 1
    return (x >> bits) & low_bits

"""Augmentation as a finite set of views: numbered, and drawn as a pure function of (seed, epoch, sample).

Because views can be counted, a teacher's outputs can be stored once for each; because a draw depends on nothing but
its three numbers, every trial sees the same ones, on any machine and in any batch order. Left out: what cannot be
enumerated (colour jitter, mixing of images).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError


@dataclass(frozen=True)
class CropFlip:
    """Crops of the image's own size out of its zero-padded self, with `flip` also mirrored left to right.

    Raises InputError for a padding below 0.
    """

    padding: int
    """Pixels added at each side."""
    flip: bool

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding of {self.padding} pixels; allowed is 0 (no shift) or more")

    @property
    def count(self) -> int:
        """How many views there are: (2·padding + 1)², or twice that; view 0 is the untouched image."""
        return self._crops * (2 if self.flip else 1)

    def draw(self, seed: int, epoch: int, samples: Tensor) -> Tensor:
        """A view for each sample, uniform, independent over seeds, epochs and samples: (B,) → (B,) int64."""
        return _draw_uniform(seed, epoch, samples, self.count)

    def apply(self, images: Tensor, views: Tensor) -> Tensor:
        """The given view of each image: uint8 (B, C, H, W) and (B,) → uint8 (B, C, H, W)."""
        if self.count == 1:
            return images
        batch, channels, height, width = images.shape
        rows, columns = self._sources(views, height, width)
        stride = width + 2 * self.padding
        pixels = (rows[:, :, None] * stride + columns[:, None, :]).reshape(batch, 1, height * width)
        padded = F.pad(images, [self.padding] * 4).flatten(2)
        return padded.gather(2, pixels.expand(-1, channels, -1)).view(images.shape)

    @property
    def _crops(self) -> int:
        return (2 * self.padding + 1) ** 2

    def _sources(self, views: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The row and column of the padded image that each row (B, H) and column (B, W) of a view shows."""
        shifts = 2 * self.padding + 1
        # The middle one of all crops leaves the image where it is; numbering starts there.
        crop = (views + self._crops // 2) % self._crops
        mirrored = (views >= self._crops)[:, None]
        across = torch.arange(width, device=views.device)
        rows = (crop // shifts)[:, None] + torch.arange(height, device=views.device)
        columns = (crop % shifts)[:, None] + torch.where(mirrored, width - 1 - across, across)
        return rows, columns


@dataclass(frozen=True)
class GridCrops:
    """Square crops of images of any size, at rows × columns places from edge to edge, with `flip` also mirrored.

    View 0 is the whole image. It is never drawn: whole images of different sizes make no batch.
    Raises InputError for a size that is odd or below 2, or fewer than one row or column.
    """

    size: int
    """Pixels at each side; even, as are the places, so that maps of half the image's size are cropped alike."""
    rows: int
    columns: int
    flip: bool = True

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise InputError(f"crops of {self.size} pixels; allowed is an even number, at least 2")
        if self.rows < 1 or self.columns < 1:
            raise InputError(f"{self.rows} × {self.columns} crops; allowed is one row and one column, or more")

    @property
    def count(self) -> int:
        """How many views there are, the whole image among them."""
        return 1 + self._crops * (2 if self.flip else 1)

    def draw(self, seed: int, epoch: int, samples: Tensor) -> Tensor:
        """A crop for each sample, uniform, independent over seeds, epochs and samples: (B,) → (B,) int64."""
        return 1 + _draw_uniform(seed, epoch, samples, self.count - 1)

    def apply(self, image: Tensor, view: int, stride: int = 1) -> Tensor:
        """A view of an image, or of its map at 1/`stride` of its size: (C, H, W) → (C, size, size) / stride.

        The image is at least as large as a crop.
        """
        if view == 0:
            return image
        height, width = image.shape[1] * stride, image.shape[2] * stride
        top, left, side = *self.locate_crop(view, height, width), self.size // stride
        crop = image[:, top // stride :, left // stride :][:, :side, :side]
        return crop.flip(2) if self._mirrored(view) else crop

    def locate_crop(self, view: int, height: int, width: int) -> tuple[int, int]:
        """The top row and the left column of a crop in an image of this size."""
        row, column = divmod((view - 1) % self._crops, self.columns)
        return _crop_start(row, self.rows, height - self.size), _crop_start(column, self.columns, width - self.size)

    @property
    def _crops(self) -> int:
        return self.rows * self.columns

    def _mirrored(self, view: int) -> bool:
        return view > self._crops


def _crop_start(number: int, places: int, room: int) -> int:
    """Where the crop of this number begins: evenly from 0 to `room`, in the middle if there is one place; even."""
    return (room * number // (places - 1) if places > 1 else room // 2) // 2 * 2


@dataclass(frozen=True)
class Flips:
    """Images as they are, view 0, and mirrored left to right."""

    @property
    def count(self) -> int:
        """How many views there are."""
        return 2

    def draw(self, seed: int, epoch: int, samples: Tensor) -> Tensor:
        """A view for each sample, uniform, independent over seeds, epochs and samples: (B,) → (B,) int64."""
        return _draw_uniform(seed, epoch, samples, self.count)

    def apply(self, images: Tensor, views: Tensor, mirrored: Sequence[int] | None = None) -> Tensor:
        """The given view of each image (B, C, H, W), or of each map of labels (B, H, W).

        `mirrored` says for each label what it is in the mirror, such as the right eye for the left one.
        """
        flipped = images.flip(-1)
        if mirrored is not None:
            flipped = torch.tensor(mirrored, dtype=images.dtype, device=images.device)[flipped.long()]
        return torch.where(views.view(-1, *[1] * (images.dim() - 1)) == 1, flipped, images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images/255 − mean)/std: uint8 (B, C, H, W), mean and std (C,) float32 → float32 (B, C, H, W)."""
    return images.float().div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def denormalise(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What `normalise` was given: float32 (B, C, H, W) → uint8 (B, C, H, W)."""
    means, stds = (torch.tensor(values, device=inputs.device)[:, None, None] for values in (mean, std))
    return inputs.mul(stds).add_(means).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _draw_uniform(seed: int, epoch: int, samples: Tensor, count: int) -> Tensor:
    """A number below `count` for each sample: (B,) → (B,) int64."""
    stream = _mix_bits(_mix_bits(torch.tensor(seed)) + epoch)
    return (_mix_bits(stream + samples * _GAMMA) & _LOW_63_BITS) % count


# SplitMix64 (Steele, Lea, Flood 2014; constants of Stafford's mix 13) on int64, whose overflow wraps around.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_LOW_63_BITS = 2**63 - 1


def _mix_bits(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FACTORS[0]
    x = (x ^ _shift_right(x, 27)) * _FACTORS[1]
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; that of int64 would copy the sign."""
    low_bits: int = 2 ** (64 - bits) - 1
    return (x >> bits) & low_bits

"""MixUp and CutMix: views in which an image is mixed with another one, and its label with the other's.

A view's number is the seed of all that is drawn for it: the image's own view, the other image and its view, and how
they are mixed. It is a pure function of (seed, epoch, sample), as that of other views is, and does not depend on the
batch. There are too many of these numbers to store a teacher's outputs for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from study.errors import InputError
from trainables.training.random_views import ResizedCrops, SeededViews
from trainables.training.settings import check_range
from trainables.training.views import CropFlip, Views, hash_to_uniform

ImageViews = CropFlip | ResizedCrops | SeededViews

_COUNT = 2**62
"""Number of views: that of int64 numbers above 0, halved so that no sum of them overflows."""

_QUANTILES = 4096
"""Points of a Beta distribution between which its quantiles are interpolated."""

# streams of random numbers, apart from those of other views
_OTHER, _KIND, _SHARE, _ROW, _COLUMN = range(100, 105)


@dataclass(frozen=True)
class Mixed(Views):
    """Images under `views`, each mixed with another image of the split: by MixUp, by CutMix, or half of them by each.

    MixUp adds up λ·x + (1 − λ)·x′, λ drawn from Beta(α, α), and the labels alike. CutMix replaces a rectangle of x by
    that of x′, of the share 1 − λ before it is cut at the edge, and weighs labels by the areas. The other image is
    drawn from the whole split, not from the batch, so that an image does not depend on the batch that it is in.
    Teacher outputs cannot be stored: the teacher is run on the mixed images at every step.
    Raises InputError for an α below 0, and if both are 0.
    Source: Zhang et al. 2018, mixup; Yun et al. 2019, CutMix, with the usual α = 1.
    """

    views: ImageViews
    mixup: float = 0.0
    """α of MixUp; 0 for none."""
    cutmix: float = 0.0
    """α of CutMix; 0 for none."""

    draws_untouched: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("mixup", self.mixup, low=0)
        check_range("cutmix", self.cutmix, low=0)
        if not (self.mixup or self.cutmix):
            raise InputError("neither mixup nor cutmix is above 0; allowed is Mixed(views, mixup=0.2, cutmix=1.0)")

    @property
    def count(self) -> int:
        return 1 + _COUNT

    def draw_pairs(self, views: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is mixed, for each view (B,): (B,) int64 three times.

        The own view of the image, the other image among `count`, and that one's view.
        """
        own, other_view = (self.views.draw(0, stream, views) for stream in (0, 1))
        other = (hash_to_uniform(views, _OTHER) * count).long()
        return torch.where(views == 0, 0, own), other, other_view

    def compute_shares(self, views: Tensor, height: int, width: int) -> Tensor:
        """Return each pixel's share of the image itself, the rest is the other's: views (B,) → (B, H, W) float32.

        Their mean over an image is its share of the label.
        """
        uniform = hash_to_uniform(views, _SHARE)
        whole = torch.ones(len(views), height, width, device=views.device)
        by_mixup = whole * _sample_beta(self.mixup, uniform)[:, None, None] if self.mixup else whole
        by_cutmix = _cut_rectangles(self.cutmix, uniform, views, height, width) if self.cutmix else whole
        if self.mixup and self.cutmix:
            by_mixup = torch.where((hash_to_uniform(views, _KIND) < 0.5)[:, None, None], by_mixup, by_cutmix)
        mixed = by_mixup if self.mixup else by_cutmix
        return torch.where((views == 0)[:, None, None], whole, mixed)


def _cut_rectangles(alpha: float, uniform: Tensor, views: Tensor, height: int, width: int) -> Tensor:
    """Return 0 in a rectangle of each image, else 1: (B, H, W) float32."""
    side = (1 - _sample_beta(alpha, uniform)).sqrt()  # share of the image's height and width
    inside = []
    for length, stream in ((height, _ROW), (width, _COLUMN)):
        middle, half = (hash_to_uniform(views, stream) * length).floor(), (side * length / 2).floor()
        place = torch.arange(length, device=views.device)
        inside.append((place >= (middle - half)[:, None]) & (place < (middle + half)[:, None]))  # (B, length)
    rows, columns = inside
    return 1 - (rows[:, :, None] & columns[:, None, :]).float()


def _sample_beta(alpha: float, uniform: Tensor) -> Tensor:
    """Return numbers of the distribution Beta(α, α), given uniform ones: (B,) float64 → (B,) float32."""
    table = _tabulate_beta(alpha, str(uniform.device))
    place = uniform * _QUANTILES
    low = place.long()
    return torch.lerp(table[low], table[low + 1], place - low).float()


@lru_cache(maxsize=8)
def _tabulate_beta(alpha: float, device: str) -> Tensor:
    """Return the quantiles 0, 1/4096, …, 1 of Beta(α, α), (4097,) float64."""
    from scipy.special import betaincinv

    quantiles = torch.linspace(0, 1, _QUANTILES + 1, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, quantiles.numpy())).to(device)

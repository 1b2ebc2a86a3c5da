"""Labelled images on the device, or in files and read batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.arrays.lazy_images import LazyImages
from trainables.data.arrays.splits import ImageArray
from trainables.task import Batch, index_device, prefetch
from trainables.training.mixing import ImageViews, Mixed
from trainables.training.views import normalise

RESIDENT_BYTES = 2**30
"""Size from which memory-mapped images are read batch by batch instead of being kept on the device. Well below a GPU's
memory, of which trials take a share each, and large enough for 80,000 images of 64 pixels."""


@dataclass(frozen=True)
class ResidentImages:
    """A split as one uint8 tensor (N, C, H, W) on the device, with labels (N,) int64 or targets (N, M) float32."""

    images: Tensor
    labels: Tensor
    views: ImageViews
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Width of the images in pixels."""
        return int(self.images.shape[-1])

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        inputs = _to_inputs(self.views.apply(self.images[samples], views), self.mean, self.std)
        return Batch(inputs, self.labels[samples], samples, views)


@dataclass(frozen=True, eq=False)
class MappedImages:
    """A split of images (N, C, H, W) that stay on disk, read batch by batch; `labels` of the split are on the host."""

    images: ImageArray
    positions: npt.NDArray[np.int64]
    """Those of the split."""
    labels: Tensor
    views: ImageViews
    mean: Tensor
    std: Tensor

    index_device: ClassVar[str] = "cpu"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def side(self) -> int:
        """Width of the images in pixels."""
        return int(self.images.shape[-1])

    def prefetch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Decode the images of the next batches ahead, if they are decoded when they are taken."""
        if isinstance(self.images, LazyImages):
            self.images.prefetch(self.positions[samples.numpy()] for samples, _ in batches)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        device = self.mean.device
        pixels = torch.from_numpy(self.images[self.positions[samples.numpy()]])
        pixels, labels, samples, views = (
            part.to(device, non_blocking=True) for part in (pixels, self.labels[samples], samples, views)
        )
        return Batch(_to_inputs(self.views.apply(pixels, views), self.mean, self.std), labels, samples, views)


@dataclass(frozen=True, eq=False)
class DerivedImages:
    """A split whose batches are made from another's, whose length, statistics and device are its own."""

    images: ResidentImages | MappedImages

    @property
    def index_device(self) -> str | None:
        return index_device(self.images, "") or None

    @property
    def mean(self) -> Tensor:
        return self.images.mean

    @property
    def std(self) -> Tensor:
        return self.images.std

    def __len__(self) -> int:
        return len(self.images)

    def prefetch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        prefetch(self.images, batches)


@dataclass(frozen=True, eq=False)
class MixedImages(DerivedImages):
    """A split whose images are mixed with each other; targets are the shares of the classes, (B, K) float32."""

    views: Mixed
    classes: int

    def prefetch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        pairs = (self._draw_pairs(samples, views) for samples, views in batches)
        prefetch(self.images, (part for pair in pairs for part in pair))

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        one, two = (self.images.batch(*part) for part in self._draw_pairs(samples, views))
        views = views.to(one.inputs.device, non_blocking=True)
        shares = self.views.compute_shares(views, *one.inputs.shape[2:])  # (B, H, W)
        inputs = torch.lerp(two.inputs, one.inputs, shares[:, None])
        share = shares.mean(dim=(1, 2))[:, None]
        labels = (F.one_hot(batch.targets, self.classes).float() for batch in (one, two))
        targets = share * next(labels) + (1 - share) * next(labels)
        return Batch(inputs, targets, one.samples, views)

    def _draw_pairs(self, samples: Tensor, views: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return samples and views of the images themselves, and of those that they are mixed with: (B,) each."""
        own, other, other_view = self.views.draw_pairs(views, len(self))
        return (samples, own), (other, other_view)


def are_mapped(images: ImageArray) -> bool:
    """Return whether batches are read from files: of images that are decoded when taken, or too many for the device."""
    return isinstance(images, LazyImages) or (isinstance(images, np.memmap) and images.nbytes > RESIDENT_BYTES)


def make_examples(
    pool: ImageArray,
    images: ImageArray,
    positions: npt.NDArray[np.int64],
    labels: Tensor,
    views: ImageViews,
    normalisation: tuple[Tensor, Tensor],
) -> ResidentImages | MappedImages:
    """Return the examples at these positions of `images`, on the device of mean and deviation unless `pool` is mapped.

    `labels` are those of the positions.
    """
    mean, std = normalisation
    if are_mapped(pool):
        return MappedImages(images, positions, labels, views, mean, std)
    resident, labels = torch.from_numpy(images[positions]).to(mean.device), labels.to(mean.device)
    return ResidentImages(resident, labels, views, mean, std)


def _to_inputs(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    inputs = normalise(pixels, mean, std)
    # on GPUs the memory format of the net's weights decides
    return inputs if inputs.is_cuda else inputs.contiguous(memory_format=torch.channels_last)

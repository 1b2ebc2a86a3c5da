"""Labelled images on the device, or memory-mapped and read batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.task import Batch
from trainables.training.random_views import ResizedCrops, SeededViews
from trainables.training.views import CropFlip, normalise

ImageViews = CropFlip | ResizedCrops | SeededViews


@dataclass(frozen=True)
class ResidentImages:
    """A split as one uint8 tensor (N, C, H, W) on the device, with labels (N,) int64."""

    images: Tensor
    labels: Tensor
    views: ImageViews
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        inputs = _to_inputs(self.views.apply(self.images[samples], views), self.mean, self.std)
        return Batch(inputs, self.labels[samples], samples, views)


@dataclass(frozen=True, eq=False)
class MappedImages:
    """A split of images (N, C, H, W) that stay on disk, read batch by batch; `labels` (M,) int64 are on the host."""

    images: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int64]
    """(M,): those of the split."""
    labels: Tensor
    views: ImageViews
    mean: Tensor
    std: Tensor

    index_device: ClassVar[str] = "cpu"

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        device = self.mean.device
        pixels = torch.from_numpy(self.images[self.positions[samples.numpy()]])
        pixels, labels, samples, views = (
            part.to(device, non_blocking=True) for part in (pixels, self.labels[samples], samples, views)
        )
        return Batch(_to_inputs(self.views.apply(pixels, views), self.mean, self.std), labels, samples, views)


def _to_inputs(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    inputs = normalise(pixels, mean, std)
    # on GPUs the memory format of the net's weights decides
    return inputs if inputs.is_cuda else inputs.contiguous(memory_format=torch.channels_last)

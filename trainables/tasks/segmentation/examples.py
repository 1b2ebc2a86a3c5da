"""Images and their label maps as batches on a device, read from arrays that may be memory-mapped.

There is no DataLoader: a batch is a few rows of a file that the operating system caches in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables.data.arrays.label_maps import LabelMaps
from trainables.task import Batch
from trainables.training.views import CropFlip, Flips, normalise


@dataclass(frozen=True, eq=False)
class LabelledPixels:
    """A split of images, read batch by batch; targets are labels (B, H, W) int64."""

    maps: LabelMaps
    views: Flips | CropFlip
    mean: Tensor
    std: Tensor
    mirrored: Tensor
    """(256,) int64 on the device: the label in the mirror image of each label."""

    index_device: ClassVar[str] = "cpu"

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        rows = samples.cpu().numpy()
        # a copy of these rows alone: the arrays may be larger than memory
        images, labels = (
            torch.from_numpy(np.ascontiguousarray(array[rows])) for array in (self.maps.images, self.maps.labels)
        )
        images, labels, samples, views = (
            tensor.to(self.mean.device, non_blocking=True) for tensor in (images, labels, samples, views)
        )
        inputs = normalise(self.views.apply(images, views), self.mean, self.std)
        targets = view_labels(self.views, labels, views, self.mirrored)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), targets, samples, views)


def view_labels(how: Flips | CropFlip, labels: Tensor, views: Tensor, mirrored: Tensor) -> Tensor:
    """Apply a view to each label map: (B, H, W) uint8, views (B,), mirrored (256,) int64 → (B, H, W) int64.

    Pixels from outside the image are IGNORED. Labels of mirrored maps are exchanged by `mirrored`.
    """
    # shifted by one, modulo 256: the zeros that a view adds at the edges stand for IGNORED
    moved = how.apply((labels + 1)[:, None], views)[:, 0] - 1
    exchanged = mirrored[moved.long()]
    return torch.where(how.is_mirrored(views)[:, None, None], exchanged, moved.long())

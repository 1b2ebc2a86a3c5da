"""Faces and their labels as batches on a device, read from arrays that may be memory-mapped.

There is no DataLoader: a batch is a few rows of a file that the operating system caches in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables.data.arrays.face_decoding import CLASSES
from trainables.data.arrays.face_parsing import Faces
from trainables.task import Batch
from trainables.training.views import Flips, normalise

_LEFT, _RIGHT = ("l_eye", "l_brow", "l_ear"), ("r_eye", "r_brow", "r_ear")  # l_lip is the lower lip
_OTHER_SIDE = dict(zip(_LEFT + _RIGHT, _RIGHT + _LEFT, strict=True))
MIRRORED = tuple(CLASSES.index(_OTHER_SIDE.get(name, name)) for name in CLASSES)
"""The class of each class in the mirror image."""


@dataclass(frozen=True, eq=False)
class FaceExamples:
    """A split of faces, read batch by batch; targets are labels (B, H, W) int64."""

    faces: Faces
    views: Flips
    mean: Tensor
    std: Tensor
    mirrored: Tensor
    """`MIRRORED` (K,) int64 on the device."""

    index_device: ClassVar[str] = "cpu"

    def __len__(self) -> int:
        return len(self.faces)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        rows = samples.cpu().numpy()
        # a copy of these rows alone: the arrays may be larger than memory
        images, labels = (
            torch.from_numpy(np.ascontiguousarray(array[rows])) for array in (self.faces.images, self.faces.labels)
        )
        images, labels, samples, views = (
            tensor.to(self.mean.device, non_blocking=True) for tensor in (images, labels, samples, views)
        )
        inputs = normalise(self.views.apply(images, views), self.mean, self.std)
        targets = self.views.apply(labels.long(), views, self.mirrored)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), targets, samples, views)

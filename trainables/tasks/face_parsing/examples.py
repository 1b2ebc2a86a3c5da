"""Faces and their labels as batches on a device, read from arrays that may be memory-mapped.

There is no DataLoader: a batch is a few rows of a file that the operating system caches in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def __len__(self) -> int:
        return len(self.faces)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        rows, device = samples.cpu().numpy(), self.mean.device
        # a copy of these rows alone: the arrays may be larger than memory
        images, labels = (
            torch.from_numpy(np.ascontiguousarray(array[rows])).to(device)
            for array in (self.faces.images, self.faces.labels)
        )
        inputs = normalise(self.views.apply(images, views), self.mean, self.std)
        targets = self.views.apply(labels.long(), views, MIRRORED)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), targets, samples, views)

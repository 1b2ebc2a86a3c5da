"""Faces and their labels as batches on a device: read from arrays that may lie on disk, mirrored alike.

There is no DataLoader: a batch is a few rows of a file that the system keeps in memory as long as there is room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.data.arrays.face_decoding import CLASSES
from trainables.data.arrays.face_parsing import Faces, FaceSet
from trainables.task import Batch
from trainables.training.views import Flips, normalise

_LEFT, _RIGHT = ("l_eye", "l_brow", "l_ear"), ("r_eye", "r_brow", "r_ear")  # l_lip is the lower lip
_OTHER_SIDE = dict(zip(_LEFT + _RIGHT, _RIGHT + _LEFT, strict=True))
MIRRORED = tuple(CLASSES.index(_OTHER_SIDE.get(name, name)) for name in CLASSES)
"""By class, what it is in the mirror."""


@dataclass(frozen=True, eq=False)
class FaceExamples:
    """A split of faces, which are read when a batch asks for them; targets are labels (B, H, W) int64."""

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


def face_examples(faces: Faces, face_set: FaceSet, device: str) -> FaceExamples:
    """All of `faces`, a part of `face_set`, whose normalisation they get."""
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (face_set.mean, face_set.std))
    return FaceExamples(faces, Flips(), mean, std)

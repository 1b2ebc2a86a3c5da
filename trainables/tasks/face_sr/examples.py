"""Faces and their small copies as batches on a device: read from arrays that may lie on disk, mirrored alike.

Small images are computed from large ones when a batch asks for them: they are 1/64 of these at scale 8, and other
scales need no other files. There is no DataLoader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.data.arrays.face_sr import SrFaces
from trainables.models.sr.common import upsample_bicubic
from trainables.task import Batch
from trainables.training.views import Flips

MIRRORED = (1, 0, 2, 3)
"""By component, what it is in the mirror: eyes change places."""


@dataclass(frozen=True)
class SrTargets:
    """What is true of a batch of small images."""

    image: Tensor
    """(B, 3, S, S) float32 in [0, 1]."""
    boxes: Tensor | None
    """(B, 4, 4) float32: left, top, right and bottom of left eye, right eye, nose and mouth, in pixels of `image`.
    None if the data have no landmarks."""


@dataclass(frozen=True, eq=False)
class SrExamples:
    """A split of faces, which are read when a batch asks for them; inputs are small images (B, 3, S/scale, S/scale)."""

    faces: SrFaces
    views: Flips
    scale: int
    device: str
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Inputs are shares of 1 and not normalised further."""

    def __len__(self) -> int:
        return len(self.faces)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        rows = samples.cpu().numpy()
        # a copy of these rows alone: the arrays may be larger than memory
        pixels = torch.from_numpy(np.ascontiguousarray(self.faces.images[rows])).to(self.device)
        image = self.views.apply(pixels, views).float().div_(255)
        boxes = None
        if self.faces.boxes is not None:
            boxes = flipped_boxes(torch.from_numpy(self.faces.boxes[rows]).to(self.device), views, image.shape[-1])
        inputs = reduced(image, self.scale).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, SrTargets(image, boxes), samples, views)


def sr_examples(faces: SrFaces, scale: int, device: str) -> SrExamples:
    """All of `faces`. Raises InputError for a scale below 2, or one that does not divide their size."""
    size = faces.images.shape[-1]
    if scale < 2 or size % scale:
        raise InputError(f"faces of {size} pixels at scale {scale}; allowed is a divisor of their size, 2 or more")
    return SrExamples(faces, Flips(), scale, device)


def reduced(images: Tensor, scale: int) -> Tensor:
    """1/`scale` of the size, bicubic without aliasing, in steps of 1/255: (B, 3, H, W) in [0, 1] → (B, 3, h, w).

    Rounded, since a small image that somebody has is a file of 8 bits; and so nothing of the large one is hidden in
    what such a file would not keep.
    """
    size = (images.shape[2] // scale, images.shape[3] // scale)
    small = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return small.clamp_(0, 1).mul_(255).round_().div_(255)


def bicubic(low: Tensor, scale: int) -> Tensor:
    """`scale` times the size with nothing learned, what every net is to surpass: (B, 3, h, w) → (B, 3, H, W)."""
    return upsample_bicubic(low, scale).clamp_(0, 1)


def flipped_boxes(boxes: Tensor, views: Tensor, width: int) -> Tensor:
    """Boxes (B, 4, 4) in the given views (B,) of `Flips` of images of this width."""
    left, top, right, bottom = boxes[:, MIRRORED].unbind(dim=2)
    mirrored = torch.stack([width - right, top, width - left, bottom], dim=2)
    return torch.where(views[:, None, None] == 1, mirrored, boxes)

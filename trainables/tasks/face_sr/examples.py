"""Faces and their reduced copies as batches on a device, read from arrays that may be memory-mapped.

Reduced images are computed batch by batch, so that other scales need no other files. There is no DataLoader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
"""The component of each component in the mirror image: eyes change places."""


@dataclass(frozen=True)
class SrTargets:
    """The truth of a batch of reduced images."""

    image: Tensor
    """(B, 3, S, S) float32 in [0, 1]."""
    boxes: Tensor | None
    """(B, 4, 4) float32: left, top, right and bottom of left eye, right eye, nose and mouth, in pixels of `image`.
    None if the data have no landmarks."""


@dataclass(frozen=True, eq=False)
class SrExamples:
    """A split of faces, read batch by batch; inputs are reduced images (B, 3, S/scale, S/scale).

    Raises InputError for a scale below 2, or one that does not divide the size of the faces.
    """

    faces: SrFaces
    views: Flips
    scale: int
    device: str
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Inputs are shares of 1, without further normalisation."""

    index_device: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        size = self.faces.images.shape[-1]
        if self.scale < 2 or size % self.scale:
            raise InputError(
                f"faces of {size} pixels at scale {self.scale}; allowed is a divisor of their size, 2 or more"
            )

    def __len__(self) -> int:
        return len(self.faces)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        rows = samples.cpu().numpy()
        # a copy of these rows alone: the arrays may be larger than memory
        pixels = torch.from_numpy(np.ascontiguousarray(self.faces.images[rows]))
        boxes = None
        if self.faces.boxes is not None:  # flipped on the host, where the views are
            boxes = flip_boxes(torch.from_numpy(self.faces.boxes[rows]), views.cpu(), pixels.shape[-1])
            boxes = boxes.to(self.device, non_blocking=True)
        pixels, samples, views = (part.to(self.device, non_blocking=True) for part in (pixels, samples, views))
        image = self.views.apply(pixels, views).float().div_(255)
        inputs = reduce_bicubic(image, self.scale).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, SrTargets(image, boxes), samples, views)


def reduce_bicubic(images: Tensor, scale: int) -> Tensor:
    """Reduce to 1/`scale` of the size, bicubic, antialiased: (B, 3, H, W) in [0, 1] → (B, 3, H/scale, W/scale).

    Values are rounded to steps of 1/255, as in the 8-bit files that small images are: finer steps would leak
    information about the large image.
    """
    size = (images.shape[2] // scale, images.shape[3] // scale)
    small = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return small.clamp_(0, 1).mul_(255).round_().div_(255)


def enlarge_bicubic(low: Tensor, scale: int) -> Tensor:
    """Enlarge `scale` times by bicubic interpolation, the baseline of every net: (B, 3, h, w) → (B, 3, H, W)."""
    return upsample_bicubic(low, scale).clamp_(0, 1)


def flip_boxes(boxes: Tensor, views: Tensor, width: int) -> Tensor:
    """Return the boxes (B, 4, 4) in the views (B,) of `Flips`, of images of this width in pixels."""
    left, top, right, bottom = boxes[:, MIRRORED].unbind(dim=2)
    mirrored = torch.stack([width - right, top, width - left, bottom], dim=2)
    return torch.where(views[:, None, None] == 1, mirrored, boxes)

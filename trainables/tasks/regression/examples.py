"""Images with points as batches: where a view moves the image, its points move with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.task import Batch
from trainables.tasks.classification.examples import DerivedImages
from trainables.training.views import CropFlip


@dataclass(frozen=True, eq=False)
class ImagesWithPoints(DerivedImages):
    """A split of images with points (N, 2·P), x and y from −1 to 1, as `labels`."""

    views: CropFlip
    order: Tensor
    """(P,) int64 on the device: for each point the one that takes its place in the mirror image."""

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        batch = self.images.batch(samples, views)
        return replace(batch, targets=view_points(self.views, batch.targets, batch.views, self.order, self.images.side))


def view_points(how: CropFlip, points: Tensor, views: Tensor, order: Tensor, side: int) -> Tensor:
    """Apply a view to the points of each image of `side` pixels: (B, 2·P), views (B,), order (P,) → (B, 2·P)."""
    moved = points.view(len(points), -1, 2) - 2 * how.measure_shifts(views)[:, None] / side
    x, y = moved.unbind(dim=2)
    mirrored = torch.stack([-x, y], dim=2)[:, order]
    return torch.where(how.is_mirrored(views)[:, None, None], mirrored, moved).flatten(1)

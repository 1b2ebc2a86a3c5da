"""Photographs of crowds on a device: crops for training, whole images for evaluation, with density map and count.

Images are uint8 until a batch is formed. There is no DataLoader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.shanghaitech import Scene
from trainables.task import Batch
from trainables.tasks.crowd_counting.density_maps import STRIDE
from trainables.training.views import GridCrops, normalise

MULTIPLE = 16
"""Image sides are padded to multiples of 16, since nets halve them up to four times."""


@dataclass(frozen=True)
class CrowdTargets:
    """The truth of a batch of images or crops."""

    density: Tensor
    """(B, 1, H/2, W/2) float32, in the task's density scale."""
    counts: Tensor
    """(B,) float32: annotated heads, which is not the sum of the map where a crop cuts through kernels."""


@dataclass(frozen=True)
class ResidentCrowds:
    """A split on the device, each image padded at the right and at the bottom with the mean colour."""

    images: list[Tensor]
    """Each uint8 (3, H, W), H and W multiples of 16 and no smaller than a crop."""
    densities: list[Tensor]
    """Each (1, H/2, W/2) float32, people per pixel of the map, 0 in the padding."""
    heads: list[Tensor]
    """Each (P, 2): column and row of every person."""
    views: GridCrops
    mean: Tensor
    std: Tensor
    density_scale: float

    index_device: ClassVar[str] = "cpu"

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        pairs = list(zip(samples.tolist(), views.tolist(), strict=True))
        pixels = torch.stack([self.views.apply(self.images[sample], view) for sample, view in pairs])
        density = torch.stack([self.views.apply(self.densities[sample], view, STRIDE) for sample, view in pairs])
        counts = torch.tensor([self._count_heads(sample, view) for sample, view in pairs])
        samples, views, counts = (part.to(density.device, non_blocking=True) for part in (samples, views, counts))
        inputs = normalise(pixels, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, CrowdTargets(density * self.density_scale, counts), samples, views)

    def select(self, positions: Tensor) -> ResidentCrowds:
        """Return the images at these positions (N,), without copying them."""
        chosen = positions.tolist()
        images, densities, heads = (
            [tensors[index] for index in chosen] for tensors in (self.images, self.densities, self.heads)
        )
        return replace(self, images=images, densities=densities, heads=heads)

    def _count_heads(self, sample: int, view: int) -> float:
        """Return the number of annotated heads within a view."""
        heads, image = self.heads[sample], self.images[sample]
        if view == 0:
            return float(len(heads))
        top, left = self.views.locate_crop(view, *image.shape[1:])
        corner = torch.tensor([left, top])
        return float(((heads >= corner) & (heads < corner + self.views.size)).all(dim=1).sum())


def make_resident(
    scenes: Sequence[Scene],
    maps: Sequence[Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: GridCrops,
    density_scale: float,
    device: str,
) -> ResidentCrowds:
    """Return a split's scenes with their maps (1, ⌈H/2⌉, ⌈W/2⌉), padded, on the device."""
    padded = [_pad(scene, density, views.size, mean) for scene, density in zip(scenes, maps, strict=True)]
    return ResidentCrowds(
        images=[image.to(device) for image, _ in padded],
        densities=[density.to(device) for _, density in padded],
        heads=[torch.from_numpy(scene.heads).to(torch.float32) for scene in scenes],
        views=views,
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        density_scale=density_scale,
    )


def _pad(scene: Scene, density: Tensor, least: int, mean: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return an image and its map, padded to multiples of 16 pixels and to at least `least` a side."""
    _, *size = scene.image.shape
    height, width = (-(-max(side, least) // MULTIPLE) * MULTIPLE for side in size)
    frame = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8)[:, None, None]
    image = frame.repeat(1, height, width)
    image[:, : size[0], : size[1]] = torch.from_numpy(scene.image)
    right, below = width // STRIDE - density.shape[2], height // STRIDE - density.shape[1]
    return image, F.pad(density, [0, right, 0, below])

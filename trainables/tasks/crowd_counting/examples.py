"""Photographs of crowds on a device: crops of them for training, whole ones for evaluation, with map and count.

Images stay there as uint8, their density maps beside them. There is no DataLoader. Also how counts are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.arrays.density_maps import STRIDE
from trainables.data.shanghaitech import Scene
from trainables.task import Batch, Outputs, Panel
from trainables.training.views import GridCrops, normalise

MULTIPLE = 16
"""Images are padded to multiples of it, since nets halve them up to four times."""


@dataclass(frozen=True)
class CrowdTargets:
    """What is true of a batch of images or crops."""

    density: Tensor
    """(B, 1, H/2, W/2) float32, in the task's density scale."""
    counts: Tensor
    """(B,) float32: annotated heads, which is not the sum of the map where a crop cuts through kernels."""


@dataclass(frozen=True)
class ResidentCrowds:
    """A split on the device, each image padded at the right and at the bottom with the mean colour."""

    images: list[Tensor]
    """uint8 (3, H, W), H and W multiples of 16 and no smaller than a crop."""
    densities: list[Tensor]
    """(1, H/2, W/2) float32, people per pixel, 0 where padded."""
    heads: list[Tensor]
    views: GridCrops
    mean: Tensor
    std: Tensor
    density_scale: float

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        pairs = list(zip(samples.tolist(), views.tolist(), strict=True))
        pixels = torch.stack([self.views.apply(self.images[sample], view) for sample, view in pairs])
        density = torch.stack([self.views.apply(self.densities[sample], view, STRIDE) for sample, view in pairs])
        counts = torch.tensor([self._count(sample, view) for sample, view in pairs], device=density.device)
        inputs = normalise(pixels, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, CrowdTargets(density * self.density_scale, counts), samples, views)

    def at(self, positions: Tensor) -> ResidentCrowds:
        """The images at these positions (N,), which are not copied."""
        chosen = positions.tolist()
        images, densities, heads = (
            [tensors[index] for index in chosen] for tensors in (self.images, self.densities, self.heads)
        )
        return replace(self, images=images, densities=densities, heads=heads)

    def _count(self, sample: int, view: int) -> float:
        """How many heads a view shows."""
        heads, image = self.heads[sample], self.images[sample]
        if view == 0:
            return float(len(heads))
        top, left = self.views.locate_crop(view, *image.shape[1:])
        corner = torch.tensor([left, top])
        return float(((heads >= corner) & (heads < corner + self.views.size)).all(dim=1).sum())


def resident(
    scenes: Sequence[Scene],
    maps: Sequence[Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: GridCrops,
    density_scale: float,
    device: str,
) -> ResidentCrowds:
    """A split's scenes with their maps (1, ⌈H/2⌉, ⌈W/2⌉), padded and on the device."""
    padded = [_padded(scene, density, views.size, mean) for scene, density in zip(scenes, maps, strict=True)]
    return ResidentCrowds(
        images=[image.to(device) for image, _ in padded],
        densities=[density.to(device) for _, density in padded],
        heads=[torch.from_numpy(scene.heads).to(torch.float32) for scene in scenes],
        views=views,
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        density_scale=density_scale,
    )


COUNT_ERRORS = ("mae", "rmse")


class CountErrors:
    """Errors of the count, which is the sum of the predicted map: MAE = mean |e|, RMSE = √(mean e²), in people.

    The literature on crowds writes MSE for RMSE.
    """

    def __init__(self, density_scale: float, device: str):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics import MeanAbsoluteError, MeanSquaredError

        self._scale = density_scale
        self._mae, self._rmse = MeanAbsoluteError().to(device), MeanSquaredError(squared=False).to(device)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        counts = outputs.prediction.detach().float().sum(dim=(1, 2, 3)) / self._scale
        self._mae.update(counts, batch.targets.counts)
        self._rmse.update(counts, batch.targets.counts)

    def compute(self) -> dict[str, float]:
        return {"mae": float(self._mae.compute()), "rmse": float(self._rmse.compute())}


def density_panels(outputs: Outputs, batch: Batch, images: Tensor, density_scale: float) -> list[Panel]:
    """What there is to see of one image (1, 3, H, W) uint8: itself, its true map and the predicted one, with counts."""

    def panel(name: str, density: Tensor, count: str, given: bool) -> Panel:
        # maps of all resolutions in one unit
        covered = (images.shape[3] / density.shape[3]) ** 2
        people = density[0, 0].float() / density_scale / covered
        return Panel(name, "map", people, f"{count} people", given, scale="people per pixel of the image")

    predicted = outputs.prediction
    return [
        Panel("image", "image", images[0], given=True),
        panel("true density", batch.targets.density, f"{batch.targets.counts[0]:.0f}", given=True),
        panel("predicted density", predicted, f"{predicted.float().sum() / density_scale:.1f}", given=False),
    ]


def _padded(scene: Scene, density: Tensor, least: int, mean: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """An image and its map, enlarged to multiples of 16 pixels and to `least` at each side."""
    _, *size = scene.image.shape
    height, width = (-(-max(side, least) // MULTIPLE) * MULTIPLE for side in size)
    frame = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8)[:, None, None]
    image = frame.repeat(1, height, width)
    image[:, : size[0], : size[1]] = torch.from_numpy(scene.image)
    right, below = width // STRIDE - density.shape[2], height // STRIDE - density.shape[1]
    return image, F.pad(density, [0, right, 0, below])

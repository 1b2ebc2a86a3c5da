"""Density maps from annotated points: geometry-adaptive Gaussians whose sum over an image is its count.

Computed once for the same points, sizes and settings, and kept in a file. Each process has its own copy in memory: maps
are padded there as their images are.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from scipy.spatial import cKDTree
from torch import Tensor

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import canonical
from study.task import TrialNote
from trainables.data.arrays.cache import derived_folder
from trainables.data.shanghaitech import Points, Scene

STRIDE = 2
"""Maps are kept at half the image's size, the finest at which a net here predicts."""

_REACH = 4.0
"""Gaussians are cut off after so many standard deviations, before they are normalised."""

_NARROWEST = 0.3
"""Pixels: a narrower Gaussian may fall between pixels, and its sum over them, which divides it, be 0."""

_METHOD = "separable Gaussians, sums over 2 × 2 pixels"
"""Part of what identifies kept maps: to be changed with the computation."""


@dataclass(frozen=True)
class AdaptiveKernels:
    """Gaussians as wide as heads are apart: σ = beta · mean distance to the nearest `neighbours`, within two bounds.

    σ in pixels; a head without neighbours gets the upper bound.
    Raises InputError for a beta that is not above 0, no neighbours, and bounds below 0.3 or that are no range.
    Source: Zhang et al. 2016, section 2.2, with beta 0.3; the bounds, and that kernels are normalised inside the image,
    are this implementation's own.
    """

    beta: float = 0.3
    neighbours: int = 3
    smallest: float = 1.0
    largest: float = 15.0

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.neighbours >= 1 and _NARROWEST <= self.smallest <= self.largest):
            raise InputError(
                f"{self}: beta must be above 0, neighbours ≥ 1, smallest ≥ {_NARROWEST} pixels and not above largest"
            )

    def widths(self, heads: Points) -> npt.NDArray[np.float64]:
        """σ of each head: (N, 2) → (N,)."""
        known = min(self.neighbours, len(heads) - 1)
        if known < 1:
            return np.full(len(heads), self.largest)
        distances, _ = cKDTree(heads).query(heads, k=known + 1)
        # of heads at one point any may be found first: the nearest is at distance 0 whichever it is
        means: npt.NDArray[np.float64] = distances[:, 1:].mean(axis=1)
        return np.clip(self.beta * means, self.smallest, self.largest)


def density_map(heads: Points, size: tuple[int, ...], kernels: AdaptiveKernels) -> npt.NDArray[np.float64]:
    """Σ_i G_σi(x − x_i) over the pixels of an image, each G normalised to sum 1 there: (N, 2) → (H, W)."""
    height, width = size
    density = np.zeros((height, width))
    for (x, y), sigma in zip(heads, kernels.widths(heads), strict=True):
        rows, down = _kernel(y, sigma, height)
        columns, across = _kernel(x, sigma, width)
        density[rows, columns] += np.outer(down, across)
    return density


def density_maps(scenes: Sequence[Scene], kernels: AdaptiveKernels) -> list[Tensor]:
    """The map of each scene at half its size, odd sizes rounded up: (1, ⌈H/2⌉, ⌈W/2⌉) float32 each.

    Where they cannot be kept, a TrialNote says so, and every process computes them again.
    """
    path = derived_folder("density") / f"{_key(scenes, kernels)}.safetensors"
    kept = _kept(path, scenes)
    if kept is not None:
        return kept
    maps = [_half(density_map(scene.heads, scene.image.shape[1:], kernels)) for scene in scenes]
    try:
        with atomic_write(path) as aside:
            aside.write_bytes(safetensors.torch.save({str(number): density for number, density in enumerate(maps)}))
    except OSError as error:
        note = f"density maps cannot be kept in {path.parent} ({error.strerror}); XDG_CACHE_HOME names another place"
        warnings.warn(note, TrialNote, stacklevel=2)
    return maps


def _kernel(centre: float, sigma: float, size: int) -> tuple[slice, npt.NDArray[np.float64]]:
    """Where a Gaussian lies on a line of pixels, and its values, which sum to 1."""
    reach = int(np.ceil(_REACH * sigma))
    start, stop = max(0, round(centre) - reach), min(size, round(centre) + reach + 1)
    values = np.exp(-((np.arange(start, stop) - centre) ** 2) / (2 * sigma**2))
    return slice(start, stop), values / values.sum()


def _half(density: npt.NDArray[np.float64]) -> Tensor:
    height, width = density.shape
    even = np.pad(density, ((0, height % STRIDE), (0, width % STRIDE)))
    sums = even.reshape(even.shape[0] // STRIDE, STRIDE, -1, STRIDE).sum(axis=(1, 3))
    return torch.from_numpy(sums.astype(np.float32))[None]


def _key(scenes: Sequence[Scene], kernels: AdaptiveKernels) -> str:
    digest = hashlib.sha256(canonical([_METHOD, kernels]).encode())
    for scene in scenes:
        digest.update(repr((scene.image.shape, scene.count)).encode())
        digest.update(np.ascontiguousarray(scene.heads).data)
    return digest.hexdigest()[:16]


def _kept(path: Path, scenes: Sequence[Scene]) -> list[Tensor] | None:
    """The maps in a file; None if there is none, or if they are not what they must be: the file is then made again."""
    try:
        tensors = safetensors.torch.load_file(path)
        maps = [tensors[str(number)] for number in range(len(scenes))]
    except (SafetensorError, OSError, KeyError):
        return None
    sums = all(
        abs(float(m.sum()) - scene.count) <= 1e-3 + 1e-5 * scene.count for m, scene in zip(maps, scenes, strict=True)
    )
    return maps if sums else None

"""Density maps from annotated points: geometry-adaptive Gaussians whose sum over an image is its count.

They are computed once for the same points, sizes and settings, and cached in a file. Each process holds a copy in
memory, padded as its images are.
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
from study.identity import to_canonical_json
from study.task import TrialNote
from trainables.data.arrays.cache import get_cache_folder
from trainables.data.shanghaitech import Points, Scene

STRIDE = 2
"""Pixels of the image per pixel of a map, in each direction: the finest at which a net here predicts."""

_REACH = 4.0
"""Standard deviations at which Gaussians are truncated before they are normalised."""

_NARROWEST = 0.3
"""Least σ in pixels: a narrower Gaussian may fall between pixels, so that the sum it is divided by is 0."""

_METHOD = "separable Gaussians, sums over 2 × 2 pixels"
"""Part of the cache key: change it with the computation."""


@dataclass(frozen=True)
class AdaptiveKernels:
    """Gaussians with σ = beta · mean distance to the nearest `neighbours`, in pixels, from `smallest` to `largest`.

    A head without neighbours gets `largest`.
    Raises InputError for a beta that is not above 0, no neighbours, a `smallest` below 0.3 or above `largest`.
    Source: Zhang et al. 2016, section 2.2, with beta 0.3; the bounds, and the normalisation of kernels inside the
    image, are this implementation's own.
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

    def compute_sigmas(self, heads: Points) -> npt.NDArray[np.float64]:
        """Return σ of each head in pixels: (N, 2) → (N,)."""
        known = min(self.neighbours, len(heads) - 1)
        if known < 1:
            return np.full(len(heads), self.largest)
        distances, _ = cKDTree(heads).query(heads, k=known + 1)
        # the first column is a head at distance 0: the head itself, or another at the same point
        means: npt.NDArray[np.float64] = distances[:, 1:].mean(axis=1)
        return np.clip(self.beta * means, self.smallest, self.largest)


def make_density_map(heads: Points, size: tuple[int, ...], kernels: AdaptiveKernels) -> npt.NDArray[np.float64]:
    """Return Σ_i G_σi(x − x_i) for heads x_i, each G normalised to sum 1 inside the image: (N, 2) → (H, W)."""
    height, width = size
    density = np.zeros((height, width))
    for (x, y), sigma in zip(heads, kernels.compute_sigmas(heads), strict=True):
        rows, down = _sample_kernel(y, sigma, height)
        columns, across = _sample_kernel(x, sigma, width)
        density[rows, columns] += np.outer(down, across)
    return density


def load_density_maps(scenes: Sequence[Scene], kernels: AdaptiveKernels) -> list[Tensor]:
    """Return the map of each scene at half its size, (1, ⌈H/2⌉, ⌈W/2⌉) float32 each.

    If they cannot be cached, it warns with a TrialNote, and every process computes them again.
    """
    path = get_cache_folder("density") / f"{_cache_key(scenes, kernels)}.safetensors"
    cached = _load_maps(path, scenes)
    if cached is not None:
        return cached
    maps = [_sum_blocks(make_density_map(scene.heads, scene.image.shape[1:], kernels)) for scene in scenes]
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(safetensors.torch.save({str(number): density for number, density in enumerate(maps)}))
    except OSError as error:
        note = f"density maps cannot be cached in {path.parent} ({error.strerror}); give another in XDG_CACHE_HOME"
        warnings.warn(note, TrialNote, stacklevel=2)
    return maps


def _sample_kernel(centre: float, sigma: float, size: int) -> tuple[slice, npt.NDArray[np.float64]]:
    """Return the range of a Gaussian on a line of `size` pixels, and its values there, which sum to 1."""
    reach = int(np.ceil(_REACH * sigma))
    start, stop = max(0, round(centre) - reach), min(size, round(centre) + reach + 1)
    values = np.exp(-((np.arange(start, stop) - centre) ** 2) / (2 * sigma**2))
    return slice(start, stop), values / values.sum()


def _sum_blocks(density: npt.NDArray[np.float64]) -> Tensor:
    """Sum a map over blocks of STRIDE × STRIDE pixels: (H, W) → (1, ⌈H/2⌉, ⌈W/2⌉)."""
    height, width = density.shape
    even = np.pad(density, ((0, height % STRIDE), (0, width % STRIDE)))
    sums = even.reshape(even.shape[0] // STRIDE, STRIDE, -1, STRIDE).sum(axis=(1, 3))
    return torch.from_numpy(sums.astype(np.float32))[None]


def _cache_key(scenes: Sequence[Scene], kernels: AdaptiveKernels) -> str:
    digest = hashlib.sha256(to_canonical_json([_METHOD, kernels]).encode())
    for scene in scenes:
        digest.update(repr((scene.image.shape, scene.count)).encode())
        digest.update(np.ascontiguousarray(scene.heads).data)
    return digest.hexdigest()[:16]


def _load_maps(path: Path, scenes: Sequence[Scene]) -> list[Tensor] | None:
    """Return the maps in a file, or None if there is none or if their sums are not the counts."""
    try:
        tensors = safetensors.torch.load_file(path)
        maps = [tensors[str(number)] for number in range(len(scenes))]
    except (SafetensorError, OSError, KeyError):
        return None
    valid = all(
        abs(float(m.sum()) - scene.count) <= 1e-3 + 1e-5 * scene.count for m, scene in zip(maps, scenes, strict=True)
    )
    return maps if valid else None

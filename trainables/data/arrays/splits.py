"""What datasets have in common: their parts, and how a pool of labelled images is split by class.

Test splits are the datasets' own and never made here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from study.errors import InputError
from study.trial import Split

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory: a pool for training and validation, and the dataset's own test split."""

    name: str
    train_images: Pixels
    """(N, C, H, W)."""
    train_labels: Labels
    """(N,), from 0 to `classes` − 1."""
    test_images: Pixels
    test_labels: Labels
    classes: int
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0…1, for normalisation."""
    std: tuple[float, ...]
    note: str = ""
    """What a record must say of it, such as that part of the training images is missing; else empty."""
    complete: bool = True
    """Whether the splits have as many images as the dataset; figures published for it are of these alone."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all images and labels, whatever files they came from."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


class Sliced(Protocol):
    """Samples of which a run can be taken without copying them."""

    def part(self, start: int, stop: int) -> Self: ...


Samples = TypeVar("Samples", bound=Sliced)


class InOrder(Generic[Samples]):
    """A base class without fields, for sets whose splits lie one after the other: train, val, test."""

    faces: Samples
    sizes: tuple[int, int, int]

    def bounds(self, split: Split) -> tuple[int, int]:
        """Where a split begins, and where it has ended; "train+val" is the pool."""
        train, val, test = self.sizes
        pool = train + val
        return {"train": (0, train), "val": (train, pool), "train+val": (0, pool), "test": (pool, pool + test)}[split]

    def split(self, split: Split) -> Samples:
        return self.faces.part(*self.bounds(split))

    @property
    def train(self) -> Samples:
        return self.split("train")

    @property
    def val(self) -> Samples:
        return self.split("val")

    @property
    def test(self) -> Samples:
        return self.split("test")

    @property
    def pool(self) -> Samples:
        return self.split("train+val")


def stratified_split(labels: Labels, held_out: float, seed: int) -> tuple[Labels, Labels]:
    """Positions that stay and positions held out, both ascending, each with the classes in proportion.

    `labels` is (N,); `held_out` is a count if an int, a share of N if a float. A class's part is its exact
    quota, rounded by the largest remainder, of equal ones the lower class first. The same arguments give the
    same split.
    Raises InputError if either part would be empty.
    """
    total = len(labels)
    count = round(held_out * total) if isinstance(held_out, float) else held_out
    if not 0 < count < total:
        raise InputError(
            f"{held_out} of {total} samples held out; "
            f"allowed is a count from 1 to {total - 1}, or a share between 0 and 1 that rounds to one"
        )
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), part, replace=False)
        for label, part in zip(classes, _apportioned(sizes, count), strict=True)
    ]
    held = np.zeros(total, dtype=bool)
    held[np.concatenate(chosen)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _apportioned(sizes: Labels, count: int) -> Labels:
    """`count` shared out in proportion to `sizes`, in whole numbers, by the largest remainder."""
    parts, remainders = np.divmod(sizes * count, sizes.sum())
    largest = np.argsort(-remainders, kind="stable")[: count - parts.sum()]
    parts[largest] += 1
    return parts

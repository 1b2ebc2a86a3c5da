"""Loaded datasets and their splits: labelled images, splits in one array, and the stratified split of a pool.

Test splits are always the datasets' own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from study.errors import InputError
from study.trial import Split
from trainables.data.arrays.duplicates import ImageHashes, group_equal, hash_images, load_hashes

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class ImageArray(Protocol):
    """Images (N, C, H, W) uint8: an array, or images that are decoded when they are taken."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.uint8]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> Any:
        """Return the images of a slice, or at positions (B,), as an array."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images: a pool for training and validation, and the dataset's own test split."""

    name: str
    train_images: ImageArray
    """(N, C, H, W)."""
    train_labels: Labels
    """(N,), from 0 to `classes` − 1."""
    test_images: ImageArray
    test_labels: Labels
    classes: int
    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1], for normalisation."""
    std: tuple[float, ...]
    note: str = ""
    """Remark for the record, such as missing training images; else empty."""
    complete: bool = True
    """False if images of the dataset are missing; published figures are shown for complete sets only."""
    class_names: tuple[str, ...] = ()
    """The name of each class, for reports and exports; empty if they have none."""
    own_validation: int = 0
    """Number of images at the end of the pool that are the dataset's own validation split; 0 if it has none."""
    stored_fingerprint: str = ""
    """The fingerprint, if it was computed when the images were decoded."""
    stored_hashes: tuple[ImageHashes, ImageHashes] | None = None
    """The hashes of the pool and of test, if they were computed when the images were decoded."""

    def check(self) -> None:
        """Check shapes, types and labels. Raises InputError for data that nets cannot be trained on."""
        for split, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if len(images.shape) != 4 or images.dtype != np.uint8:
                raise InputError(
                    f"{self.name}: {split} images are {images.dtype} of shape {images.shape}; allowed are uint8 of "
                    "shape (N, C, H, W)"
                )
            if labels.shape != images.shape[:1] or labels.dtype != np.int64:
                raise InputError(
                    f"{self.name}: {split} labels are {labels.dtype} of shape {labels.shape}; allowed are int64 of "
                    f"shape ({len(images)},), one for each image"
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
                raise InputError(
                    f"{self.name}: {split} labels are from {labels.min()} to {labels.max()}; with {self.classes} "
                    f"classes allowed are 0 to {self.classes - 1}"
                )

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all images and labels, independent of the files' names."""
        if self.stored_fingerprint:
            return self.stored_fingerprint
        digest = hashlib.sha256()
        for array in (self.train_images[:], self.train_labels, self.test_images[:], self.test_labels):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    @cached_property
    def hashes(self) -> tuple[ImageHashes, ImageHashes]:
        """The hashes of the pool's images, and of the test images."""
        if self.stored_hashes is not None:
            return self.stored_hashes
        return hash_images(self.train_images[:], False), hash_images(self.test_images[:], False)

    @cached_property
    def equal(self) -> Labels:
        """(N,): for each image of the pool the position of the first one with the same content."""
        return group_equal(self.hashes[0])


class ImageSamples(Protocol):
    """Images with their targets, of which a contiguous range can be taken without a copy."""

    @property
    def images(self) -> Pixels:
        """(N, C, H, W)."""

    def slice(self, start: int, stop: int) -> Self: ...


Samples = TypeVar("Samples", bound=ImageSamples)


@dataclass(frozen=True, eq=False)
class OrderedSplits(Generic[Samples]):
    """A data set in splits of its own, whose samples are stored in the order train, val, test."""

    name: str
    samples: Samples
    sizes: tuple[int, int, int]
    """Number of samples in train, val and test."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of sizes, images and targets, independent of the files' names."""
    note: str = ""
    """Remark for the record, such as missing images; else empty."""
    complete: bool = True
    """False if images of the dataset are missing; published figures are shown for complete sets only."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Per channel, of pixels in [0, 1], for normalisation; by default none."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    files: Sequence[str] | None = None
    """The file of each sample, for messages; None where they have none."""

    @cached_property
    def hashes(self) -> tuple[ImageHashes, ImageHashes]:
        """The hashes of the images of train and val, and of test."""
        return self.split_hashes(load_hashes(self.name, self.fingerprint, self.samples.images, self.files))

    def bounds(self, split: Split) -> tuple[int, int]:
        """Return start and stop of a split in `samples`; "train+val" is the pool."""
        train, val, test = self.sizes
        pool = train + val
        return {"train": (0, train), "val": (train, pool), "train+val": (0, pool), "test": (pool, pool + test)}[split]

    def split_hashes(self, hashes: ImageHashes) -> tuple[ImageHashes, ImageHashes]:
        """Return the hashes of the pool's samples, and of the test samples."""
        pool, test = self.bounds("train+val"), self.bounds("test")
        return hashes.slice(*pool), hashes.slice(*test)

    def split(self, split: Split) -> Samples:
        return self.samples.slice(*self.bounds(split))

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


def split_pool(labels: Labels, test: int, held_out: float, seed: int, equal: Labels) -> dict[Split, Labels]:
    """Return the positions (N,) of each split: of a pool with these labels (N,), stratified, and of `test` samples.

    `held_out` is the count or share of validation samples; `equal` (N,) has for each sample the position of the first
    one with the same content, with which it stays: of these the first ones alone are counted.
    Raises InputError if a split would be empty.
    """
    first = np.flatnonzero(equal == np.arange(len(labels)))
    held = np.zeros(len(labels), dtype=bool)
    held[first[stratified_split(labels[first], held_out, seed)[1]]] = True
    held = held[equal]
    train, val = np.flatnonzero(~held), np.flatnonzero(held)
    return {"train": train, "val": val, "train+val": np.arange(len(labels)), "test": np.arange(test)}


def stratified_split(labels: Labels, held_out: float, seed: int) -> tuple[Labels, Labels]:
    """Split positions 0 to N − 1 into those kept and those held out, both ascending, with classes in proportion.

    `labels` is (N,); `held_out` is a count if an int, a share of N if a float. Exact quotas per class are rounded by
    the largest remainder, ties to the lower class. The same arguments give the same split.
    Raises InputError if either part would be empty.
    """
    total = len(labels)
    count = round(held_out * total) if isinstance(held_out, float) else held_out
    if not 0 < count < total:
        raise InputError(
            f"{held_out} of {total} samples held out; "
            f"allowed is a count from 1 to {total - 1}, or a share that rounds to such a count"
        )
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), part, replace=False)
        for label, part in zip(classes, _apportion(sizes, count), strict=True)
    ]
    held = np.zeros(total, dtype=bool)
    held[np.concatenate(chosen)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _apportion(sizes: Labels, count: int) -> Labels:
    """Divide `count` in proportion to `sizes`, in integers, by the largest remainder."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    largest = np.argsort(-remainders, kind="stable")[: count - quotas.sum()]
    quotas[largest] += 1
    return quotas

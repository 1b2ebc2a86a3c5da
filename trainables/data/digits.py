"""Handwritten digits that come with scikit-learn: real images, ten classes, no download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.errors import InputError
from trainables.data.arrays.splits import ImageSet, Labels, Pixels, stratified_split

POOL = 898
"""Images in the first half, for training; the second is for test, as in scikit-learn's own example."""
CLASSES = 10
_SUBSET_SEED = 0


@dataclass(frozen=True)
class Digits:
    """8 × 8 grey images; `train` limits the training pool of 898 to a fixed stratified subset.

    Raises InputError for a `train` outside 10 to 898.
    """

    train: int | None = None

    def __post_init__(self) -> None:
        if self.train is not None and not CLASSES <= self.train <= POOL:
            raise InputError(
                f"digits with {self.train} training images; allowed is {CLASSES} to {POOL}, or None for all"
            )

    def load(self) -> ImageSet:
        images, labels = _read_digits()
        pool = self._choose_pool(labels[:POOL])
        scaled = images[pool] / 255
        return ImageSet(
            name="scikit-learn digits",
            train_images=images[pool],
            train_labels=labels[pool],
            test_images=images[POOL:],
            test_labels=labels[POOL:],
            classes=CLASSES,
            mean=(float(scaled.mean()),),
            std=(float(scaled.std()),),
            note="" if len(pool) == POOL else f"{len(pool)} of {POOL} training images",
        )

    def check(self) -> ImageSet:
        return self.load()

    def _choose_pool(self, labels: Labels) -> Labels:
        if self.train is None or self.train == POOL:
            return np.arange(POOL)
        return stratified_split(labels, self.train, _SUBSET_SEED)[1]


def _read_digits() -> tuple[Pixels, Labels]:
    """All 1797 images (N, 1, 8, 8) and labels (N,), in the order of the official file."""
    # Imported late: it takes a second, and every space file that only mentions digits would pay for it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Grey levels are 0 to 16; × 15 makes them 0 to 240, whole numbers that fit a byte.
    return (bunch.images[:, None] * 15).astype(np.uint8), bunch.target.astype(np.int64)

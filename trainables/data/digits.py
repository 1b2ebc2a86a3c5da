"""Handwritten digits bundled with scikit-learn: real images of ten classes, without a download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.errors import InputError
from trainables.data.arrays.splits import ImageSet, Labels, Pixels, stratified_split

POOL = 898
"""Images for training, the first half; the second half is the test split, as in scikit-learn's own example."""
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
            complete=len(pool) == POOL,
        )

    def _choose_pool(self, labels: Labels) -> Labels:
        if self.train is None or self.train == POOL:
            return np.arange(POOL)
        return stratified_split(labels, self.train, _SUBSET_SEED)[1]


def _read_digits() -> tuple[Pixels, Labels]:
    """Return all 1797 images (N, 1, 8, 8) and labels (N,), in the order of the official file."""
    # imported late: it takes a second, which a space file that only names digits must not cost
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # grey levels 0 to 16 become 0 to 240, integers that fit a byte
    return (bunch.images[:, None] * 15).astype(np.uint8), bunch.target.astype(np.int64)

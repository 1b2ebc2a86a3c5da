"""Handwritten digits bundled with scikit-learn: real images of ten classes, without a download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

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
        count = POOL if self.train is None else self.train
        pool = np.arange(POOL) if count == POOL else stratified_split(labels[:POOL], count, _SUBSET_SEED)[1]
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
            note="" if count == POOL else f"{count} of {POOL} training images",
            complete=count == POOL,
        )


def _read_digits() -> tuple[Pixels, Labels]:
    """Return all 1797 images (N, 1, 8, 8) and labels (N,), in the order of the official file."""
    rows = np.loadtxt(_find_file(), delimiter=",")  # (N, 65): the grey levels, then the label
    # grey levels 0 to 16 become 0 to 240, integers that fit a byte
    return (rows[:, :64].reshape(-1, 1, 8, 8) * 15).astype(np.uint8), rows[:, 64].astype(np.int64)


def _find_file() -> Path:
    """Return scikit-learn's file, without importing scikit-learn, which takes a second.

    Raises InputError if it is missing.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise InputError("the digits are read from scikit-learn, which is not installed: pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise InputError(f"no digits: scikit-learn's file {file} is missing; install scikit-learn again")
    return file

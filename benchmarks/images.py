"""Training images for benchmarks: real CIFAR, or random bytes in CIFAR-100's shape, which need no download."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.arrays.splits import ImageSet
from trainables.data.cifar import VARIANTS, Cifar


@dataclass(frozen=True)
class Images:
    """The first `count` training images of a data set; without one, random bytes in CIFAR-100's shape."""

    count: int
    data: Cifar | None = None

    def load(self) -> ImageSet:
        if self.data is None:
            return _make_random_images(self.count)
        images = self.data.load()
        pixels, labels = images.train_images[: self.count], images.train_labels[: self.count]
        return dataclasses.replace(images, train_images=pixels, train_labels=labels)


def _make_random_images(count: int) -> ImageSet:
    generator, test, kind = np.random.default_rng(0), 100, VARIANTS[100]
    pixels = generator.integers(0, 256, (count + test, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(count + test) % 100
    parts = pixels[:count], labels[:count], pixels[count:], labels[count:]
    return ImageSet("random images", *parts, classes=100, mean=kind.mean, std=kind.std)


def find_cifar(folder: Path) -> Cifar:
    """Return CIFAR-10 if the folder holds its test file, else CIFAR-100."""
    is_10 = any(True for pattern in ("test_batch*", "*/test_batch*") for _ in folder.glob(pattern))
    return Cifar(10 if is_10 else 100, folder)

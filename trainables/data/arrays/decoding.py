"""Decoding of images of any size to squares of one size, and the mean and deviation of their pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from study.errors import InputError, check_whole_number
from study.identity import LOCATION
from trainables.data.arrays.splits import Pixels
from trainables.data.files.source_files import check_colours, open_image

Sums = npt.NDArray[np.uint64]

MAX_THREADS = 8
"""Threads that decode by default, at most: further ones wait for Python's lock, and trials share a machine."""


@dataclass(frozen=True)
class Decoding:
    """The form of decoded images: squares of `size` pixels, cut from the middle; one channel with `grey`, else RGB.

    Raises InputError for a size below 8, and fewer than one thread.
    """

    size: int
    grey: bool
    cache: bool = field(default=True, metadata=LOCATION)
    """Whether all images are decoded once to a file; else each is decoded whenever it is in a batch."""
    threads: int | None = field(default=None, metadata=LOCATION)
    """Threads that decode batches."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 8:
            raise InputError(f"size is {self.size!r}; allowed is a number of pixels, 8 or more")
        check_whole_number("threads", self.threads, or_none=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S), of a decoded image."""
        return 1 if self.grey else 3, self.size, self.size

    @property
    def thread_count(self) -> int:
        return self.threads or min(MAX_THREADS, os.cpu_count() or 1)

    def decode(self, path: Path | str, content: bytes | None = None) -> Pixels:
        """Return an image as (C, S, S): the largest square in its middle, resized by Pillow's bicubic filter.

        With the `content` of its file, `path` only names it.
        Raises InputError for a file that cannot be decoded, or without one colour for each pixel.
        """
        image = open_image(path, content=content)
        check_colours(image, path)
        image = image.convert("L" if self.grey else "RGB")
        square = np.asarray(ImageOps.fit(image, (self.size, self.size), Image.Resampling.BICUBIC))
        return np.ascontiguousarray(square.reshape(self.size, self.size, -1).transpose(2, 0, 1))


def measure_pixels(images: Iterable[Pixels]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of images (C, S, S), of pixels in [0, 1]."""
    sums = np.stack([sum_pixels(image) for image in images])
    return compute_mean_and_std(sums)


def sum_pixels(image: Pixels) -> Sums:
    """Return the number of pixels, and the sums of their values and squares, by channel: (C, H, W) → (3, C), exact."""
    squares = np.square(image, dtype=np.uint32)
    count = np.full(len(image), image[0].size, dtype=np.uint64)
    return np.stack([count, *(values.sum(axis=(1, 2), dtype=np.uint64) for values in (image, squares))])


def compute_mean_and_std(sums: Sums) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel of N images, of pixels in [0, 1]: `sum_pixels` of each, (N, 3, C)."""
    count, total, squares = sums.sum(axis=0)
    mean = total / (255 * count)
    # images of one colour must not divide by zero
    std = np.sqrt(np.maximum(squares / (255**2 * count) - mean**2, 1e-6))
    return mean.tolist(), std.tolist()

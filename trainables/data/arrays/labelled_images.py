"""Labelled images of any size: resized and decoded once to one array, then memory-mapped.

An image's split is given, or follows from a hash of its file's bytes: equal files share a split, and a split stays when
images are added or renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.duplicates import hash_content
from trainables.data.arrays.image_sources import ImageSource
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.source_files import check_colours, open_image
from trainables.data.arrays.splits import ImageSet, Labels, Pixels

_METHOD = 2
"""Part of the cache key: change it with the splits, the resizing, the order or the note."""

_IMAGES, _LABELS, _ABOUT = "images.npy", "labels.npy", "about.json"

SPLITS = ("train", "val", "test")

PHOTOGRAPH = 96
"""Side in pixels from which images that look alike are found; smaller ones are compared by content alone."""

_CHUNK = 1024
"""Images whose pixels are summed at once, for mean and deviation."""


class LabelledFile(NamedTuple):
    """An image file with its class."""

    file: str
    """Its name in the data set's source."""
    label: int
    split: str
    """One of SPLITS, or "" if the file's content decides."""


@dataclass(frozen=True)
class Shares:
    """The shares of images for validation and test, of those whose content decides.

    Raises InputError for shares outside [0, 1) or that leave nothing for training.
    """

    val: float
    test: float

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise InputError(
                f"shares of {self.val} for validation and {self.test} for test; allowed are shares from 0, together "
                "below 1"
            )

    def choose_split(self, content: str) -> str:
        """Return the split of a file with this digest of its bytes."""
        fraction = int(content[:12], 16) / 16**12
        return "test" if fraction < self.test else "val" if fraction < self.test + self.val else "train"


@dataclass(frozen=True)
class Decoding:
    """The form of decoded images: squares of `size` pixels, cut from the middle; one channel with `grey`, else RGB.

    Raises InputError for a size below 8.
    """

    size: int
    grey: bool

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 8:
            raise InputError(f"size is {self.size!r}; allowed is a number of pixels, 8 or more")

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    def decode(self, path: Path | str, content: bytes | None = None) -> Pixels:
        """Return an image as (C, S, S): the largest square in its middle, resized by Pillow's bicubic filter.

        With the `content` of its file, `path` only names it.
        Raises InputError for a file that cannot be decoded, or without one colour for each pixel.
        """
        image = open_image(path, content=content)
        check_colours(image, path)
        image = image.convert("L" if self.grey else "RGB")
        square = np.asarray(ImageOps.fit(image, (self.size, self.size), Image.Resampling.BICUBIC))
        return np.ascontiguousarray(square.reshape(self.size, self.size, self.channels).transpose(2, 0, 1))


def load_labelled_images(
    name: str,
    source: ImageSource,
    files: Sequence[LabelledFile],
    class_names: Sequence[str],
    shares: Shares,
    decoding: Decoding,
    note: str = "",
) -> ImageSet:
    """Return the images of these files of a source; read and decode them on first use.

    Arrays are cached, and are valid until a file's name, size, time of change, label or split changes.
    Raises InputError for files that cannot be used, a split or a class without an image for training, and a full disk.
    """
    key = [_METHOD, shares, decoding, list(class_names)]
    key += [[*source.stat(one.file), one.label, one.split] for one in files]
    folder = get_cache_folder("labelled-images") / digest(key)
    images, labels, about = load_or_make(
        folder,
        f"decoded {name}",
        load=lambda folder: _load_arrays(folder, decoding),
        make=lambda folder: _write_arrays(name, folder, source, files, class_names, shares, decoding),
    )
    pool, own_validation = sum(about["sizes"][:2]), about["sizes"][1]
    return ImageSet(
        name=name,
        train_images=images[:pool],
        train_labels=labels[:pool],
        test_images=images[pool:],
        test_labels=labels[pool:],
        classes=len(class_names),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        note=", ".join(part for part in (about["note"], note) if part),
        complete=False,  # no paper says which of these images its figures are of
        class_names=tuple(class_names),
        own_validation=own_validation,
        photographs=decoding.size >= PHOTOGRAPH,
        stored_fingerprint=about["fingerprint"],
    )


def _load_arrays(folder: Path, decoding: Decoding) -> tuple[Pixels, Labels, dict[str, Any]] | None:
    """Map cached images; None if they are absent or damaged."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        images, labels = np.load(folder / _IMAGES, mmap_mode="r"), np.load(folder / _LABELS)
    except (OSError, ValueError, EOFError):
        return None
    shape = (sum(about["sizes"]), decoding.channels, decoding.size, decoding.size)
    is_whole = (images.dtype, images.shape, labels.shape) == (np.uint8, shape, shape[:1])
    return (images, labels, about) if is_whole else None


def _write_arrays(
    name: str,
    folder: Path,
    source: ImageSource,
    files: Sequence[LabelledFile],
    class_names: Sequence[str],
    shares: Shares,
    decoding: Decoding,
) -> None:
    """Decode all files to one array in the order of the splits, and write labels and metadata."""
    contents = hash_files(source, [one.file for one in files])
    splits = [one.split or shares.choose_split(content) for one, content in zip(files, contents, strict=True)]
    order = sorted(range(len(files)), key=lambda index: (SPLITS.index(splits[index]), files[index].file))
    labels = np.array([files[index].label for index in order], dtype=np.int64)
    sizes = [splits.count(split) for split in SPLITS]
    check_split_sizes(name, sizes, ("train", "test"))
    _check_classes(name, sizes, labels, class_names)
    hashed = hashlib.sha256(repr((sizes, list(class_names))).encode())
    shape = (len(files), decoding.channels, decoding.size, decoding.size)
    ordered = [files[index].file for index in order]

    def decode(file: str) -> list[Pixels]:
        return [decoding.decode(source.locate(file), source.read(file))]

    write_arrays(name, folder, {_IMAGES: shape}, ordered, decode, hashed)
    hashed.update(labels.data)
    np.save(folder / _LABELS, labels)
    images = np.load(folder / _IMAGES, mmap_mode="r")
    mean, std = measure_pixels(images[: sizes[0]])
    about = {"sizes": sizes, "mean": mean, "std": std, "fingerprint": hashed.hexdigest()[:16]}
    about["note"] = _describe_contradictions([files[index] for index in order], images, class_names)
    (folder / _ABOUT).write_text(json.dumps(about))


def hash_files(source: ImageSource, files: Sequence[str]) -> list[str]:
    """Return the digest of the bytes of each file of a source."""
    with ThreadPoolExecutor() as threads:  # hashlib releases the GIL
        return list(threads.map(lambda file: hashlib.sha256(source.read(file)).hexdigest(), files))


def check_split_sizes(name: str, sizes: Sequence[int], needed: Sequence[str]) -> None:
    """Raise InputError if a split that is `needed` has no images; `sizes` are those of SPLITS."""
    if not all(count for split, count in zip(SPLITS, sizes, strict=True) if split in needed):
        found = ", ".join(f"{count} {split}" for split, count in zip(SPLITS, sizes, strict=True))
        words = [{"train": "training", "val": "validation"}.get(split, split) for split in needed]
        wanted = f"{', '.join(words[:-1])} and {words[-1]}"
        raise InputError(f"{name} has {found} images: {wanted} need some; add images, or change the shares")


def _check_classes(name: str, sizes: Sequence[int], labels: Labels, class_names: Sequence[str]) -> None:
    pool = set(labels[: sizes[0]].tolist())
    if lacking := [named for label, named in enumerate(class_names) if label not in pool]:
        raise InputError(
            f"{name}: class {lacking[0]!r} has no training image: add some, remove the class, or change the shares"
        )


def measure_pixels(images: Pixels) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of (N, C, S, S), of pixels in [0, 1]."""
    sums, squares, count = np.zeros(images.shape[1]), np.zeros(images.shape[1]), 0
    for start in range(0, len(images), _CHUNK):
        pixels = images[start : start + _CHUNK].astype(np.float64) / 255
        sums, squares = sums + pixels.sum(axis=(0, 2, 3)), squares + (pixels**2).sum(axis=(0, 2, 3))
        count += pixels.size // images.shape[1]
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))  # images of one colour must not divide by zero
    return mean.tolist(), std.tolist()


def _describe_contradictions(files: Sequence[LabelledFile], images: Pixels, names: Sequence[str]) -> str:
    """Return how many images have the same pixels as one of another class, with an example; empty if none have."""
    pairs = sorted(_find_contradictions(files, images))
    if not pairs:
        return ""
    one, other = pairs[0]
    return (
        f"{len(pairs):,} image{'s' * (len(pairs) > 1)} in two classes, such as {one.file} ({names[one.label]}) and "
        f"{other.file} ({names[other.label]})"
    )


def _find_contradictions(files: Sequence[LabelledFile], images: Pixels) -> Iterator[tuple[LabelledFile, LabelledFile]]:
    """Yield pairs of files (N,) of two classes with equal images (N, C, S, S), by name, one for each further file."""
    digests = [hash_content(image).tobytes() for image in images]
    first: dict[bytes, LabelledFile] = {}
    for one, content in sorted(zip(files, digests, strict=True)):
        known = first.setdefault(content, one)
        if known.label != one.label:
            yield known, one

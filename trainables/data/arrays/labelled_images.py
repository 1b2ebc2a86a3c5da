"""Labelled images of any size: resized, and decoded once to one array or whenever they are taken.

An image's split is given, or follows from a hash of its file's bytes: equal files share a split, and a split stays when
images are added or renamed. What is known of all images, such as their hashes, is cached either way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.decoding import Decoding, Sums, compute_mean_and_std, sum_pixels
from trainables.data.arrays.duplicates import GRID, Digests, ImageHashes, Looks, hash_content, hash_looks
from trainables.data.arrays.lazy_images import LazyImages
from trainables.data.arrays.memmap import check_disk, create_array, decode_in_order
from trainables.data.arrays.splits import ImageArray, ImageSet, Pixels
from trainables.data.files.image_sources import ImageSource

_METHOD = 3
"""Part of the cache key: change it with the splits, the resizing, the order, the hashes or the note."""

_IMAGES, _CONTENT, _LOOKS, _ABOUT = "images.npy", "content.npy", "looks.npy", "about.json"

SPLITS = ("train", "val", "test")

PHOTOGRAPH = 96
"""Side in pixels from which images that look alike are found; smaller ones are compared by content alone."""


class LabelledFile(NamedTuple):
    """An image file with its class."""

    file: str
    """Its name in the data set's source."""
    label: int
    split: str
    """One of SPLITS, or "" if the file's content decides."""


class MeasuredImage(NamedTuple):
    """A decoded image with its hashes and its sums of pixels."""

    image: Pixels
    content: Digests
    looks: Looks
    sums: Sums


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


def load_labelled_images(
    name: str,
    source: ImageSource,
    files: Sequence[LabelledFile],
    class_names: Sequence[str],
    shares: Shares,
    decoding: Decoding,
    note: str = "",
) -> ImageSet:
    """Return the images of these files of a source; read all of them on first use.

    What is cached is valid until a file's name, size, time of change, label or split changes.
    Raises InputError for files that cannot be used, a split or a class without an image for training, and a full disk.
    """
    key = [_METHOD, shares, decoding, list(class_names)]
    key += [[*source.stat(one.file), one.label, one.split] for one in files]
    images, hashes, about = load_or_make(
        get_cache_folder("labelled-images") / digest(key),
        f"decoded {name}",
        load=lambda folder: _load(folder, source, decoding),
        make=lambda folder: _write(name, folder, source, files, class_names, shares, decoding),
    )
    known = {one.file: one.label for one in files}
    labels = np.array([known[file] for file in about["files"]], dtype=np.int64)
    count, pool, own_validation = len(labels), sum(about["sizes"][:2]), about["sizes"][1]
    return ImageSet(
        name=name,
        train_images=images[0],
        train_labels=labels[:pool],
        test_images=images[1],
        test_labels=labels[pool:],
        classes=len(class_names),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        note=", ".join(part for part in (about["note"], note) if part),
        complete=False,  # no paper says which of these images its figures are of
        class_names=tuple(class_names),
        own_validation=own_validation,
        stored_fingerprint=about["fingerprint"],
        stored_hashes=(hashes.slice(0, pool), hashes.slice(pool, count)),
    )


def _load(
    folder: Path, source: ImageSource, decoding: Decoding
) -> tuple[tuple[ImageArray, ImageArray], ImageHashes, dict[str, Any]] | None:
    """Return the images of the pool and of test, mapped or decoded when taken, and what is cached of them.

    None if the cache is absent or damaged.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text())
        files, pool = about["files"], sum(about["sizes"][:2])
        looks = np.load(folder / _LOOKS, mmap_mode="r") if _has_looks(decoding) else None
        hashes = ImageHashes(np.load(folder / _CONTENT), looks, files)
        if not decoding.cache:
            parts = (LazyImages(part, source, decoding) for part in (files[:pool], files[pool:]))
            return (next(parts), next(parts)), hashes, about
        images = np.load(folder / _IMAGES, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    is_whole = (images.dtype, images.shape) == (np.uint8, (len(files), *decoding.shape))
    return ((images[:pool], images[pool:]), hashes, about) if is_whole else None


def _write(
    name: str,
    folder: Path,
    source: ImageSource,
    files: Sequence[LabelledFile],
    class_names: Sequence[str],
    shares: Shares,
    decoding: Decoding,
) -> None:
    """Decode all files in the order of the splits; write what is known of them, and with a cache their images."""
    files, sizes = _sort_files(source, files, shares)
    check_split_sizes(name, sizes, ("train", "test"))
    _check_classes(name, {one.label for one in files[: sizes[0]]}, class_names)
    hashed = hashlib.sha256(repr((sizes, list(class_names))).encode())
    contents, sums, shape = [], [], (len(files), *decoding.shape)
    if decoding.cache:
        check_disk(name, folder, math.prod(shape), ", or decode images when they are needed, cache=False")
    with (
        create_array(folder / _LOOKS, (len(files), GRID**2 if _has_looks(decoding) else 0), "<f4") as looks,
        create_array(folder / _IMAGES, shape) if decoding.cache else nullcontext() as images,
    ):
        done = f"decoded to {folder.parent}" if decoding.cache else "read"
        for one in decode_in_order(name, files, lambda one: _measure(source, one.file, decoding), done):
            hashed.update(one.image.data)
            looks.write(one.looks.data)
            if images is not None:
                images.write(one.image.data)
            contents.append(one.content)
            sums.append(one.sums)
    hashed.update(np.array([one.label for one in files], dtype=np.int64).data)
    np.save(folder / _CONTENT, np.stack(contents))
    mean, std = compute_mean_and_std(np.stack(sums[: sizes[0]]))
    about = {"sizes": sizes, "mean": mean, "std": std, "fingerprint": hashed.hexdigest()[:16]}
    about |= {"files": [one.file for one in files], "note": _describe_contradictions(files, contents, class_names)}
    (folder / _ABOUT).write_text(json.dumps(about))


def _sort_files(
    source: ImageSource, files: Sequence[LabelledFile], shares: Shares
) -> tuple[list[LabelledFile], list[int]]:
    """Return files by split and name, and the number of each split's."""
    undecided = [one.file for one in files if not one.split]
    contents = dict(zip(undecided, hash_files(source, undecided), strict=True))
    # by position: a folder may be given as validation and as test
    splits = [one.split or shares.choose_split(contents[one.file]) for one in files]
    order = sorted(range(len(files)), key=lambda index: (SPLITS.index(splits[index]), files[index].file))
    return [files[index] for index in order], [splits.count(split) for split in SPLITS]


def _measure(source: ImageSource, file: str, decoding: Decoding) -> MeasuredImage:
    image = decoding.decode(source.locate(file), source.read(file))
    looks = hash_looks(image) if _has_looks(decoding) else np.zeros(0, dtype=np.float32)
    return MeasuredImage(image, hash_content(image), looks, sum_pixels(image))


def _has_looks(decoding: Decoding) -> bool:
    """Return whether images are large enough for a perceptual hash."""
    return decoding.size >= PHOTOGRAPH


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


def _check_classes(name: str, trained: Collection[int], class_names: Sequence[str]) -> None:
    if lacking := [named for label, named in enumerate(class_names) if label not in trained]:
        raise InputError(
            f"{name}: class {lacking[0]!r} has no training image: add some, remove the class, or change the shares"
        )


def _describe_contradictions(files: Sequence[LabelledFile], contents: Sequence[Digests], names: Sequence[str]) -> str:
    """Return how many images have the same pixels as one of another class, with an example; empty if none have."""
    pairs = sorted(_find_contradictions(files, contents))
    if not pairs:
        return ""
    one, other = pairs[0]
    return (
        f"{len(pairs):,} image{'s' * (len(pairs) > 1)} in two classes, such as {one.file} ({names[one.label]}) and "
        f"{other.file} ({names[other.label]})"
    )


def _find_contradictions(
    files: Sequence[LabelledFile], contents: Sequence[Digests]
) -> Iterator[tuple[LabelledFile, LabelledFile]]:
    """Yield pairs of files (N,) of two classes with equal digests (N,), by name, one for each further file."""
    digests = [content.tobytes() for content in contents]
    first: dict[bytes, LabelledFile] = {}
    for one, content in sorted(zip(files, digests, strict=True)):
        known = first.setdefault(content, one)
        if known.label != one.label:
            yield known, one

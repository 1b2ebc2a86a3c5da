"""Images that occur more than once, by their content: exactly, and for photographs by a perceptual hash.

A test image among the training images makes scores look better than they are, and a validation image a search. Mirrored
or differently cropped copies are not found.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make

GRID = 16
"""Rows and columns of the cells whose brightness is a photograph's perceptual hash."""

ALIKE = 0.995
"""Correlation from which two hashes are of one photograph. Saved again as JPEG or at another size, drawn faces of 96
pixels or more correlate by 0.991 to 1, half of them by 0.999; different ones by 0.87 at most."""
DISTANCE = math.sqrt(2 * (1 - ALIKE)) + 1e-3
"""Between two hashes of that correlation, which have length 1, with room for rounding."""

_CONTENT, _LOOKS = "content.npy", "looks.npy"
_METHOD = 1
"""Part of the cache key: change it with the hashes."""
MANY = 5000
"""Images whose hashes take long enough, a minute at 512 pixels, to say so."""

AXES = 8
"""Main components by which hashes are searched: among 300,000 they leave one of ten to compare with."""
SAMPLE = 10_000
"""Hashes whose main components are those of all, about."""

Digests = npt.NDArray[np.uint8]
Looks = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageHashes:
    """Hashes of N images, in their order."""

    content: Digests
    """(N, 16): of shape and pixels."""
    looks: Looks | None
    """(N, 256), perceptual hashes; None for images that are no photographs."""
    names: Sequence[str]
    """(N,): the files of the images, or their positions."""

    def __len__(self) -> int:
        return len(self.content)

    def select(self, positions: npt.NDArray[np.int64]) -> ImageHashes:
        """Return the hashes of the images at these positions (M,)."""
        looks = None if self.looks is None else self.looks[positions]
        return ImageHashes(self.content[positions], looks, [self.names[position] for position in positions])

    def slice(self, start: int, stop: int) -> ImageHashes:
        """Return the hashes of the images from position `start` to `stop`, without a copy."""
        looks = None if self.looks is None else self.looks[start:stop]
        return ImageHashes(self.content[start:stop], looks, self.names[start:stop])

    def join(self, other: ImageHashes) -> ImageHashes:
        """Return the hashes of these images, followed by the others'."""
        looks = None if self.looks is None or other.looks is None else np.concatenate([self.looks, other.looks])
        return ImageHashes(np.concatenate([self.content, other.content]), looks, [*self.names, *other.names])


class Duplicate(NamedTuple):
    """An image that occurs in an earlier split."""

    split: str
    image: str
    other: str
    """The name of the first image that it equals, or else of the one that it looks like most."""
    equal: bool
    """False for photographs that look alike."""


def hash_images(
    images: Iterable[npt.NDArray[np.uint8]], photographs: bool, names: Sequence[str] | None = None
) -> ImageHashes:
    """Return the hashes of images (C, H, W), read one after the other; they are called by `names` or positions."""
    content, looks = [], []
    for image in images:
        content.append(hash_content(image))
        if photographs:
            looks.append(hash_looks(image))
    stacked = np.array(content, dtype=np.uint8).reshape(len(content), 16)
    stacked_looks = np.array(looks, dtype=np.float32).reshape(len(looks), GRID**2) if photographs else None
    return ImageHashes(stacked, stacked_looks, names or name_positions(len(content)))


def name_positions(count: int) -> list[str]:
    """Return names of images that have no files of their own, from 0 on."""
    return [f"image {position}" for position in range(count)]


def hash_content(image: npt.NDArray[np.uint8]) -> Digests:
    """Return a digest of shape and pixels: (C, H, W) → (16,)."""
    hashed = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(image).data)
    return np.frombuffer(hashed.digest(), dtype=np.uint8)


def hash_looks(image: npt.NDArray[np.uint8]) -> Looks:
    """Return the perceptual hash of a photograph: (C, H, W) → (256,), of length 1.

    The brightness of 16 × 16 cells without its mean, so that the product of two hashes is their correlation, whatever
    the images' sizes, brightness and contrast; 0 for an image of even brightness.
    """
    grey = image.astype(np.float32).mean(axis=0)
    for axis in (0, 1):
        edges = np.arange(GRID) * grey.shape[axis] // GRID
        counts = np.maximum(np.diff([*edges, grey.shape[axis]]), 1)
        grey = np.add.reduceat(grey, edges, axis=axis) / np.expand_dims(counts, 1 - axis)
    centred = (grey - grey.mean()).ravel()
    length = np.linalg.norm(centred)
    return np.asarray(centred / length if length > 1 else np.zeros(GRID**2), dtype=np.float32)


def load_hashes(
    name: str, fingerprint: str, images: npt.NDArray[np.uint8], names: Sequence[str] | None = None
) -> ImageHashes:
    """Return the hashes of photographs (N, C, H, W), which may be larger than memory; computed on first use.

    They are called by `names` or positions. The cache key is the data's fingerprint.
    Raises InputError if the cache cannot be written.
    """
    folder = get_cache_folder("duplicates") / digest(_METHOD, fingerprint)

    def load(folder: Path) -> ImageHashes | None:
        try:
            content, looks = np.load(folder / _CONTENT), np.load(folder / _LOOKS)
        except (OSError, ValueError, EOFError):
            return None
        is_whole = len(content) == len(images)
        return ImageHashes(content, looks, names or name_positions(len(content))) if is_whole else None

    def make(folder: Path) -> None:
        if len(images) >= MANY:
            print(f"{name}: looking for duplicates among {len(images):,} images, once for all studies", file=sys.stderr)
        hashes = hash_images(images, photographs=True)
        assert hashes.looks is not None
        np.save(folder / _CONTENT, hashes.content)
        np.save(folder / _LOOKS, hashes.looks)

    return load_or_make(folder, f"hashes of {name}", load, make)


def group_equal(hashes: ImageHashes) -> npt.NDArray[np.int64]:
    """Return for each image the position of the first one with the same content: (N,)."""
    _, first, inverse = np.unique(hashes.content, axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64)


def find_duplicates(splits: Mapping[str, ImageHashes]) -> list[Duplicate]:
    """Return the images that occur in an earlier split: equal ones of each split, then those that look alike.

    The splits are in the order train, val, test.
    """
    found = []
    earlier: ImageHashes | None = None
    for split, hashes in splits.items():
        if earlier is not None:
            equal, alike = _find_equal(hashes, earlier), _find_alike(hashes, earlier)
            pairs = [(one, other, True) for one, other in equal.items()]
            pairs += [(one, other, False) for one, other in alike.items() if one not in equal]
            found += [Duplicate(split, hashes.names[one], earlier.names[other], same) for one, other, same in pairs]
        earlier = hashes if earlier is None else earlier.join(hashes)
    return found


def describe_duplicates(found: Sequence[Duplicate], splits: Mapping[str, ImageHashes]) -> str:
    """Return a sentence on the `find_duplicates` of splits, with an example of each kind; empty if there are none."""
    names, sentences = list(splits), []
    for (split, equal), group in groupby(found, lambda one: (one.split, one.equal)):
        pairs = list(group)
        where = " or ".join(names[: names.index(split)])
        what = "occur" if equal else "look like one"
        example = f"{pairs[0].image} {'is' if equal else 'is like'} {pairs[0].other}"
        more = f", and {len(pairs) - 1:,} more" if len(pairs) > 1 else ""
        sentences.append(f"{len(pairs):,} of {len(splits[split]):,} {split} images {what} in {where} ({example}{more})")
    return "; ".join(sentences)


def _find_equal(hashes: ImageHashes, others: ImageHashes) -> dict[int, int]:
    """Return the first position among the others of each image that equals one of them, by its own position."""
    known = {row.tobytes(): position for position, row in reversed(list(enumerate(others.content)))}
    contents = enumerate(row.tobytes() for row in hashes.content)
    return {position: known[content] for position, content in contents if content in known}


def _find_alike(hashes: ImageHashes, others: ImageHashes) -> dict[int, int]:
    """Return the position of the most similar among the others for photographs that look like one of them.

    The others are searched by their AXES main components: a projection brings no two hashes further apart, so that none
    is missed, and leaves few to compare with.
    """
    if hashes.looks is None or others.looks is None or not len(others):
        return {}
    from scipy.spatial import KDTree  # takes 0.3 s, which most data need not spend

    sample = others.looks[:: 1 + len(others) // SAMPLE]
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -AXES:]
    tree = KDTree(others.looks @ axes)
    found: dict[int, int] = {}
    for position, (looks, near) in enumerate(zip(hashes.looks, hashes.looks @ axes, strict=True)):
        candidates = tree.query_ball_point(near, DISTANCE) if looks.any() else []
        if candidates:
            correlations = others.looks[candidates] @ looks
            nearest = int(correlations.argmax())
            found |= {position: candidates[nearest]} if correlations[nearest] >= ALIKE else {}
    return found

"""Images that occur more than once, by their content: exactly, and for photographs by a perceptual hash.

A test image among the training images makes scores look better than they are, and a validation image a search. Mirrored
or differently cropped copies are not found.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make

GRID = 16
"""Rows and columns of the cells whose brightness is a photograph's perceptual hash."""

ALIKE = 0.995
"""Correlation from which two hashes are of one photograph. Saved again as JPEG or at another size, drawn faces of 96
pixels or more correlate by 0.991 to 1, half of them by 0.999; different ones by 0.87 at most."""

_CONTENT, _LOOKS = "content.npy", "looks.npy"
_METHOD = 1
"""Part of the cache key: change it with the hashes."""
MANY = 5000
"""Images whose hashes take long enough, a minute at 512 pixels, to say so."""

_CHUNK = 4096
"""Hashes compared at once with all others: 400 MB for 24,000."""

Digests = npt.NDArray[np.uint8]
Looks = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageHashes:
    """Hashes of N images, in their order."""

    content: Digests
    """(N, 16): of shape and pixels."""
    looks: Looks | None = None
    """(N, 256), perceptual hashes; None for images that are no photographs."""

    def __len__(self) -> int:
        return len(self.content)

    def select(self, positions: npt.NDArray[np.int64]) -> ImageHashes:
        """Return the hashes of the images at these positions (M,)."""
        return ImageHashes(self.content[positions], None if self.looks is None else self.looks[positions])

    def join(self, other: ImageHashes) -> ImageHashes:
        """Return the hashes of these images, followed by the others'."""
        looks = None if self.looks is None or other.looks is None else np.concatenate([self.looks, other.looks])
        return ImageHashes(np.concatenate([self.content, other.content]), looks)


def hash_images(images: Iterable[npt.NDArray[np.uint8]], photographs: bool) -> ImageHashes:
    """Return the hashes of images (C, H, W), read one after the other."""
    content, looks = [], []
    for image in images:
        content.append(hash_content(image))
        if photographs:
            looks.append(hash_looks(image))
    stacked = np.array(content, dtype=np.uint8).reshape(len(content), 16)
    return ImageHashes(stacked, np.array(looks, dtype=np.float32).reshape(len(looks), GRID**2) if photographs else None)


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


def load_hashes(name: str, fingerprint: str, images: npt.NDArray[np.uint8]) -> ImageHashes:
    """Return the hashes of photographs (N, C, H, W), which may be larger than memory; computed on first use.

    The cache key is the data's fingerprint. Raises InputError if the cache cannot be written.
    """
    folder = get_cache_folder("duplicates") / digest(_METHOD, fingerprint)

    def load(folder: Path) -> ImageHashes | None:
        try:
            hashes = ImageHashes(np.load(folder / _CONTENT), np.load(folder / _LOOKS))
        except (OSError, ValueError, EOFError):
            return None
        return hashes if len(hashes) == len(images) else None

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


def describe_duplicates(splits: Mapping[str, ImageHashes]) -> str:
    """Return a sentence on images that occur in two splits, by their names in the order train, val, test; else empty.

    Each image counts once: as equal to one of an earlier split, or else as alike.
    """
    found = []
    earlier: list[tuple[str, ImageHashes]] = []
    for name, hashes in splits.items():
        if earlier:
            equal, alike = _count_matches(hashes, earlier[0][1] if len(earlier) == 1 else _join(earlier))
            where = " or ".join(other for other, _ in earlier)
            found += [f"{equal:,} of {len(hashes):,} {name} images occur in {where}"] if equal else []
            found += [f"{alike:,} of {len(hashes):,} {name} images look like one in {where}"] if alike else []
        earlier.append((name, hashes))
    return "; ".join(found)


def _join(splits: list[tuple[str, ImageHashes]]) -> ImageHashes:
    joined = splits[0][1]
    for _, hashes in splits[1:]:
        joined = joined.join(hashes)
    return joined


def _count_matches(hashes: ImageHashes, others: ImageHashes) -> tuple[int, int]:
    """Return how many images are equal to one of the others, and how many are not but look like one."""
    known = {row.tobytes() for row in others.content}
    equal = np.array([row.tobytes() in known for row in hashes.content], dtype=bool)
    if hashes.looks is None or others.looks is None:
        return int(equal.sum()), 0
    alike = np.concatenate([*_find_alike(hashes.looks, others.looks), np.zeros(0, dtype=bool)])
    return int(equal.sum()), int((alike & ~equal).sum())


def _find_alike(looks: Looks, others: Looks) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield chunk by chunk which hashes correlate with one of the others."""
    for start in range(0, len(looks), _CHUNK):
        yield (looks[start : start + _CHUNK] @ others.T).max(axis=1) >= ALIKE

"""Faces with a class for each pixel: arrays decoded from their files once, then memory-mapped.

The full CelebAMask-HQ takes minutes to decode and does not fit in most memories. All processes of a machine share one
copy on disk and its pages in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.face_decoding import CLASSES, Portrait, Resolution, decode_portrait
from trainables.data.arrays.label_maps import LabelMaps
from trainables.data.arrays.memmap import write_arrays

_METHOD = "bilinear images, nearest labels"
"""Part of the cache key: change it with the decoding."""

_IMAGES, _LABELS, _FINGERPRINT = "images.npy", "labels.npy", "fingerprint"


def load_faces(name: str, splits: Sequence[Sequence[Portrait]], resolution: Resolution) -> tuple[LabelMaps, str]:
    """Return the faces of all splits in order, and their fingerprint; decode them on first use.

    The cache key is made of names, sizes and times of change of the files, since hashing all bytes would take minutes
    in every process; the fingerprint is of the decoded arrays. Arrays of files that have changed stay in the cache.
    Raises InputError for a file that cannot be decoded or is of another size, and if the disk is full.
    """
    portraits = [portrait for split in splits for portrait in split]
    sizes = [len(split) for split in splits]
    folder = get_cache_folder("faces") / _cache_key(portraits, sizes, resolution)
    return load_or_make(
        folder,
        f"decoded {name}",
        load=lambda folder: _load_arrays(folder, len(portraits), resolution.size),
        make=lambda folder: _write_arrays(name, folder, portraits, sizes, resolution),
    )


def _cache_key(portraits: Sequence[Portrait], sizes: Sequence[int], resolution: Resolution) -> str:
    digest = hashlib.sha256(repr((_METHOD, sizes, resolution)).encode())
    for portrait in portraits:
        files = [portrait.image, *(file for _, file in portrait.masks)]
        digest.update(repr([(file.name, file.size_bytes, file.changed_ns) for file in files]).encode())
    return digest.hexdigest()[:16]


def _load_arrays(folder: Path, count: int, size: int) -> tuple[LabelMaps, str] | None:
    """Map cached arrays and return them with their fingerprint; None if they are invalid: they are then decoded again.

    Inside the arrays only labels are checked: one outside CLASSES would fail in a loss.
    """
    try:
        images, labels = (np.load(folder / name, mmap_mode="r") for name in (_IMAGES, _LABELS))
        fingerprint = (folder / _FINGERPRINT).read_text()
    except (OSError, ValueError, EOFError):
        return None
    shapes = [(array.dtype, array.shape) for array in (images, labels)]
    if shapes != [(np.uint8, (count, 3, size, size)), (np.uint8, (count, size, size))]:
        return None
    valid = re.fullmatch("[0-9a-f]{16}", fingerprint) and labels.max() < len(CLASSES)
    return (LabelMaps(images, labels), fingerprint) if valid else None


def _write_arrays(
    name: str, folder: Path, portraits: Sequence[Portrait], sizes: Sequence[int], resolution: Resolution
) -> None:
    """Decode all portraits to arrays in `folder`, and write their fingerprint."""
    count, size = len(portraits), resolution.size
    digest = hashlib.sha256(repr(sizes).encode())
    shapes = {_IMAGES: (count, 3, size, size), _LABELS: (count, size, size)}
    write_arrays(name, folder, shapes, portraits, lambda portrait: decode_portrait(portrait, resolution), digest)
    (folder / _FINGERPRINT).write_text(digest.hexdigest()[:16])

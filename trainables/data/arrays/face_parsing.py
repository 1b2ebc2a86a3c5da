"""Faces with a class for each pixel, as arrays: decoded from their files once, then mapped into memory.

The whole of CelebAMask-HQ takes minutes to decode and is larger than most memories. All processes of a machine share
one copy of it on disk, and the pages of it that are in use.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.face_decoding import CLASSES, Portrait, Resolution, decode_portrait
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import OrderedSplits, Pixels
from trainables.models.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD

_METHOD = "bilinear images, nearest labels"
"""Part of what identifies kept arrays: to be changed with the decoding."""

_IMAGES, _LABELS, _FINGERPRINT = "images.npy", "labels.npy", "fingerprint"


@dataclass(frozen=True, eq=False)
class Faces:
    """Images and the class of each of their pixels, in memory or mapped from a file."""

    images: Pixels
    """(N, 3, H, W)."""
    labels: Pixels
    """(N, H, W), places in CLASSES."""

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int) -> Faces:
        return Faces(self.images[start:stop], self.labels[start:stop])


@dataclass(frozen=True, eq=False)
class FaceSet(OrderedSplits[Faces]):
    """Faces in the dataset's own splits."""

    name: str
    faces: Faces
    """Those of train, then of val, then of test."""
    sizes: tuple[int, int, int]
    """How many these are."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of sizes, images and labels, whatever files they came from."""
    note: str = ""
    """What a record must say of it, such as that part of the images is missing; else empty."""
    complete: bool = True
    """Whether the splits have as many images as the dataset; figures published for it are of these alone."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Per channel, of pixels scaled to 0…1, for normalisation: nets may start from ImageNet's weights."""
    std: tuple[float, ...] = IMAGENET_STD


def load_faces(name: str, splits: Sequence[Sequence[Portrait]], resolution: Resolution) -> tuple[Faces, str]:
    """The faces of all splits, one after the other, and their fingerprint; decoded now if they never were.

    Arrays are kept by names, sizes and times of change of their files, since to hash all their bytes would take minutes
    in every process; the fingerprint is of what was decoded. Arrays of files that changed since stay until somebody
    deletes them.
    Raises InputError for a file that cannot be decoded or is of another size, and if there is no room on the disk.
    """
    portraits = [portrait for split in splits for portrait in split]
    sizes = [len(split) for split in splits]
    folder = get_cache_folder("faces") / _cache_key(portraits, sizes, resolution)
    return load_or_make(
        folder,
        f"decoded {name}",
        read=lambda folder: _load_arrays(folder, len(portraits), resolution.size),
        make=lambda folder: _write_arrays(name, folder, portraits, sizes, resolution),
    )


def _cache_key(portraits: Sequence[Portrait], sizes: Sequence[int], resolution: Resolution) -> str:
    digest = hashlib.sha256(repr((_METHOD, sizes, resolution)).encode())
    for portrait in portraits:
        files = [portrait.image, *(file for _, file in portrait.masks)]
        digest.update(repr([(file.name, file.size_bytes, file.changed_ns) for file in files]).encode())
    return digest.hexdigest()[:16]


def _load_arrays(folder: Path, count: int, size: int) -> tuple[Faces, str] | None:
    """Kept arrays and their fingerprint; None if they are not what they must be: they are then made again.

    Of damage within them only a label that is no class is looked for: a loss would stumble over it.
    """
    try:
        images, labels = (np.load(folder / name, mmap_mode="r") for name in (_IMAGES, _LABELS))
        fingerprint = (folder / _FINGERPRINT).read_text()
    except (OSError, ValueError, EOFError):
        return None
    shapes = [(array.dtype, array.shape) for array in (images, labels)]
    if shapes != [(np.uint8, (count, 3, size, size)), (np.uint8, (count, size, size))]:
        return None
    sound = re.fullmatch("[0-9a-f]{16}", fingerprint) and labels.max() < len(CLASSES)
    return (Faces(images, labels), fingerprint) if sound else None


def _write_arrays(
    name: str, folder: Path, portraits: Sequence[Portrait], sizes: Sequence[int], resolution: Resolution
) -> None:
    """Write the arrays and their fingerprint to a folder."""
    count, size = len(portraits), resolution.size
    digest = hashlib.sha256(repr(sizes).encode())
    shapes = {_IMAGES: (count, 3, size, size), _LABELS: (count, size, size)}
    write_arrays(name, folder, shapes, portraits, lambda portrait: decode_portrait(portrait, resolution), digest)
    (folder / _FINGERPRINT).write_text(digest.hexdigest()[:16])

"""Photographs of faces for super-resolution: arrays cropped and resized once, then memory-mapped.

Boxes of eyes, nose and mouth are stored with them if the data have landmarks. Low-resolution images are not stored:
trainables/tasks/face_sr/examples.py computes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.duplicates import hash_content
from trainables.data.arrays.landmarks import Boxes, Crop, compute_component_boxes
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import OrderedSplits, Pixels
from trainables.data.files.source_files import open_image, stat_file

_METHOD = 2
"""Part of the cache key: change it with the selection, cropping or resizing."""

_IMAGES, _BOXES, _ABOUT = "images.npy", "boxes.npy", "about.json"


@dataclass(frozen=True, eq=False)
class SrFaces:
    """Images and boxes, in memory or memory-mapped."""

    images: Pixels
    """(N, 3, S, S)."""
    boxes: Boxes | None
    """(N, 4, 4): left, top, right and bottom of COMPONENTS in pixels; None if the data have no landmarks."""

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> SrFaces:
        return SrFaces(self.images[start:stop], None if self.boxes is None else self.boxes[start:stop])


@dataclass(frozen=True, eq=False)
class SrSet(OrderedSplits[SrFaces]):
    """Faces in the splits train, val and test, which nets get without normalisation."""

    @property
    def images(self) -> Pixels:
        return self.samples.images

    @property
    def boxes(self) -> Boxes | None:
        return self.samples.boxes


class Photo(NamedTuple):
    """One face in an image file."""

    file: str
    """Path below the dataset's folder."""
    crop: Crop
    """The square to crop."""
    points: Sequence[float] | None
    """Five landmarks x, y, x, y, … in pixels of the uncropped image, if there are any."""


class Selection(NamedTuple):
    """The photos that a dataset's loader selects for train, val and test."""

    splits: tuple[Sequence[Photo], Sequence[Photo], Sequence[Photo]]
    note: str


def load_sr_faces(name: str, root: Path, key: Any, size: int, select: Callable[[], Selection], complete: bool) -> SrSet:
    """Return the faces that `select` returns from `root`, resized to `size` pixels; select and decode on first use.

    Arrays are cached under `key`, which describes all that the selection depends on, and are valid until name, size or
    time of change of one of their files changes.
    Raises InputError as `select` does, for a file that cannot be decoded, and if the disk is full.
    """
    folder = get_cache_folder("sr-faces") / digest(_METHOD, key, size)
    faces, about = load_or_make(
        folder,
        f"decoded {name}",
        load=lambda folder: _load_arrays(folder, root, size),
        make=lambda folder: _write_arrays(name, folder, root, select(), size),
    )
    train, val, test = about["sizes"]
    return SrSet(name, faces, (train, val, test), about["fingerprint"], about["note"], complete)


def _load_arrays(folder: Path, root: Path, size: int) -> tuple[SrFaces, dict[str, Any]] | None:
    """Map cached faces; None if they are invalid or their files have changed: they are then decoded again."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        images = np.load(folder / _IMAGES, mmap_mode="r")
        boxes = np.load(folder / _BOXES) if about["boxes"] else None
        unchanged = all(stat_file(root, file) == (file, *rest) for file, *rest in about["sources"])
    except (OSError, ValueError, EOFError, InputError):
        return None
    count = sum(about["sizes"])
    if (images.dtype, images.shape) != (np.uint8, (count, 3, size, size)):
        return None
    if boxes is not None and (
        (boxes.dtype, boxes.shape) != (np.float32, (count, 4, 4)) or not np.isfinite(boxes).all()
    ):
        return None
    return (SrFaces(images, boxes), about) if unchanged else None


def _write_arrays(name: str, folder: Path, root: Path, selection: Selection, size: int) -> None:
    """Decode all photos to arrays in `folder`, and write boxes and metadata."""
    photos = [photo for split in selection.splits for photo in split]
    sizes = [len(split) for split in selection.splits]
    sources = [stat_file(root, photo.file) for photo in photos]
    hashed = hashlib.sha256(repr(sizes).encode())
    shapes = {_IMAGES: (len(photos), 3, size, size)}
    write_arrays(name, folder, shapes, photos, lambda photo: [_decode_photo(root, photo, size)], hashed)
    points = [photo.points for photo in photos if photo.points is not None]
    if points:
        boxes = compute_component_boxes(points, [photo.crop for photo in photos], size)
        hashed.update(boxes.data)
        np.save(folder / _BOXES, boxes)
    about = {"sizes": sizes, "note": selection.note, "fingerprint": hashed.hexdigest()[:16], "boxes": bool(points)}
    (folder / _ABOUT).write_text(json.dumps(about | {"sources": sources}))


def _decode_photo(root: Path, photo: Photo, size: int) -> Pixels:
    """Return an image (3, S, S), cropped and reduced with Pillow's bicubic filter, which does not alias."""
    face = open_image(root / photo.file).convert("RGB").crop(photo.crop)
    pixels = np.asarray(face.resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def move_copies(root: Path, train: Sequence[Photo], val: Sequence[Photo], size: int) -> tuple[list[Photo], list[Photo]]:
    """Return train and val with those photos of val in train that have the same pixels as one of train.

    Photos are compared as they are decoded, cropped and resized. Raises InputError for a file that cannot be decoded.
    """

    def hash_photo(photo: Photo) -> bytes:
        return hash_content(_decode_photo(root, photo, size)).tobytes()

    with ThreadPoolExecutor() as threads:  # Pillow releases the GIL while it decodes
        known = set(threads.map(hash_photo, train))
        is_copy = [content in known for content in threads.map(hash_photo, val)]
    copies = [photo for photo, copied in zip(val, is_copy, strict=True) if copied]
    return [*train, *copies], [photo for photo, copied in zip(val, is_copy, strict=True) if not copied]


def hash_to_fraction(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, equal on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:6]) / 2**48

"""Photographs of faces for super-resolution, as arrays: cut out and resized once, then mapped into memory.

With them lie the boxes of eyes, nose and mouth, if the data have landmarks. Low-resolution images are not kept: they
follow from these (trainables/tasks/face_sr/examples.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import derived_folder, made_once
from trainables.data.arrays.face_decoding import SourceFile, opened
from trainables.data.arrays.landmarks import Boxes, Crop, component_boxes
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import InOrder, Pixels

_METHOD = 1
"""Which version of choosing, cutting out and resizing kept arrays come from: to be changed with it."""

_IMAGES, _BOXES, _ABOUT = "images.npy", "boxes.npy", "about.json"


@dataclass(frozen=True, eq=False)
class SrFaces:
    """Images and boxes of a split."""

    images: Pixels
    """(N, 3, S, S)."""
    boxes: Boxes | None
    """(N, 4, 4): left, top, right and bottom of left eye, right eye, nose and mouth, in pixels; left as in the picture.
    None if the data have no landmarks."""

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int) -> SrFaces:
        return SrFaces(self.images[start:stop], None if self.boxes is None else self.boxes[start:stop])


@dataclass(frozen=True, eq=False)
class SrSet(InOrder[SrFaces]):
    """Faces in three splits."""

    name: str
    faces: SrFaces
    """Those of train, then of val, then of test."""
    sizes: tuple[int, int, int]
    """How many these are."""
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of sizes, images and boxes, whatever files they came from."""
    note: str = ""
    """What a record must say of it, such as how many faces were left out; else empty."""
    complete: bool = True
    """Whether these are all images of the dataset; figures published for it are of these alone."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Inputs are shares of 1, without further normalisation."""

    @property
    def images(self) -> Pixels:
        return self.faces.images

    @property
    def boxes(self) -> Boxes | None:
        return self.faces.boxes


class Photo(NamedTuple):
    """One face in an image file."""

    file: str
    """Below the dataset's folder."""
    crop: Crop
    """A square."""
    points: Sequence[float] | None
    """Five landmarks in pixels of the whole image, if there are any: x, y, x, y, …"""


class Chosen(NamedTuple):
    """What a dataset's loader takes."""

    splits: tuple[Sequence[Photo], Sequence[Photo], Sequence[Photo]]
    note: str


def decoded(name: str, root: Path, key: Any, size: int, choose: Callable[[], Chosen], complete: bool) -> SrSet:
    """The faces that `choose` takes from `root`, resized to `size` pixels; chosen and decoded now if they never were.

    They are kept by `key`, which describes what the choice depends on, and as long as name, size and time of change of
    their files remain.
    Raises InputError as `choose` does, for a file that cannot be decoded, and if there is no room on the disk.
    """
    folder = derived_folder("sr-faces") / digest(_METHOD, key, size)
    faces, about = made_once(
        folder,
        f"decoded {name}",
        read=lambda folder: _mapped(folder, root, size),
        make=lambda folder: _write(name, folder, root, choose(), size),
    )
    train, val, test = about["sizes"]
    return SrSet(name, faces, (train, val, test), about["fingerprint"], about["note"], complete)


def measured(path: Path) -> tuple[int, int, bool]:
    """Width and height of an image, and whether it is grey.

    Raises InputError if it cannot be opened or is neither grey nor in three colours.
    """
    file = opened(str(path), whole=False)
    if file.mode not in ("RGB", "L") or "transparency" in file.info:
        raise InputError(
            f"{path} is of Pillow's mode {file.mode}{', with transparency' * ('transparency' in file.info)}; allowed "
            "are RGB and L, grey: what is transparent has no colour, and others no one reading; save it as RGB"
        )
    return file.width, file.height, file.mode == "L"


def source(root: Path, file: str) -> SourceFile:
    """A file as its folder lists it. Raises InputError if it is not there."""
    try:
        about = (root / file).stat()
    except OSError as error:
        raise InputError(f"{root / file} cannot be read ({error.strerror}): copy it anew, or remove it") from None
    return SourceFile(file, about.st_size, about.st_mtime_ns)


def _mapped(folder: Path, root: Path, size: int) -> tuple[SrFaces, dict[str, Any]] | None:
    """Kept faces; None if they are not what they must be, or their files have changed: they are then made again."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        images = np.load(folder / _IMAGES, mmap_mode="r")
        boxes = np.load(folder / _BOXES) if about["boxes"] else None
        unchanged = all(source(root, file) == (file, *rest) for file, *rest in about["sources"])
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


def _write(name: str, folder: Path, root: Path, chosen: Chosen, size: int) -> None:
    """Write images, boxes and what is known of them to a folder."""
    photos = [photo for split in chosen.splits for photo in split]
    sizes = [len(split) for split in chosen.splits]
    sources = [source(root, photo.file) for photo in photos]
    hashed = hashlib.sha256(repr(sizes).encode())
    shapes = {_IMAGES: (len(photos), 3, size, size)}
    write_arrays(name, folder, shapes, photos, lambda photo: [_decoded(root, photo, size)], hashed)
    points = [photo.points for photo in photos if photo.points is not None]
    if points:
        boxes = component_boxes(points, [photo.crop for photo in photos], size)
        hashed.update(boxes.data)
        np.save(folder / _BOXES, boxes)
    about = {"sizes": sizes, "note": chosen.note, "fingerprint": hashed.hexdigest()[:16], "boxes": bool(points)}
    (folder / _ABOUT).write_text(json.dumps(about | {"sources": sources}))


def _decoded(root: Path, photo: Photo, size: int) -> Pixels:
    """An image (3, S, S), cut out and reduced with Pillow's bicubic filter, which does not alias.

    A JPEG has no checksum: changed bytes in its scan decode silently, to other pixels.
    """
    face = opened(os.fspath(root / photo.file)).convert("RGB").crop(photo.crop)
    pixels = np.asarray(face.resize((size, size), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def hashed_share(name: str) -> float:
    """A number in [0, 1) that follows from a name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48

"""Faces with a class for each pixel: arrays decoded from their files once, then memory-mapped.

The full CelebAMask-HQ takes minutes to decode and does not fit in most memories. All processes of a machine share one
copy on disk and its pages in memory. A face's labels are combined from one mask file for each part of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.label_maps import LabelMaps
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import Pixels
from trainables.data.files.source_files import SourceFile, check_colours, open_image

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Classes in the authors' order, in which a later mask is painted over an earlier one."""

_MODES = ("1", "L", "P", "RGB")
"""Pillow's modes that masks may have: black and white, grey, palette, colour."""

_METHOD = "bilinear images, nearest labels"
"""Part of the cache key: change it with the decoding."""

_IMAGES, _LABELS, _FINGERPRINT = "images.npy", "labels.npy", "fingerprint"


class Portrait(NamedTuple):
    """The files of one face."""

    image: SourceFile
    masks: tuple[tuple[int, SourceFile], ...]
    """Class and file of each mask, by ascending class."""


class Resolution(NamedTuple):
    """Side in pixels of the decoded arrays and of the mask files."""

    size: int
    mask_size: int


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


def decode_portrait(portrait: Portrait, resolution: Resolution) -> tuple[Pixels, Pixels]:
    """Return image (3, H, W) and labels (H, W) of a face; labels are resized by nearest neighbour.

    Raises InputError for a file that cannot be decoded, an image that is not square or too small, a mask of another
    size, and a mask whose palette makes black ambiguous.
    """
    size, mask_size = resolution
    labels = np.zeros((mask_size, mask_size), dtype=np.uint8)
    for number, mask in portrait.masks:
        labels[_decode_mask(mask.path, mask_size)] = number
    nearest = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    image = _decode_image(portrait.image.path, size)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), np.array(nearest)


def _decode_image(path: str, size: int) -> Pixels:
    """Return a square image (H, W, 3), reduced with Pillow's bilinear filter, which does not alias."""
    file = open_image(path)
    if file.width != file.height or file.width < size:
        raise InputError(
            f"{path} has {file.width} × {file.height} pixels; allowed are squares of {size} pixels or more: "
            "copy it again from the archive, or give a smaller size"
        )
    check_colours(file, path)
    return np.asarray(file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _decode_mask(path: str, mask_size: int) -> npt.NDArray[np.bool_]:
    """Return True where a mask is not black: (H, W)."""
    file = open_image(path)
    if file.size != (mask_size, mask_size):
        raise InputError(
            f"{path} has {file.width} × {file.height} pixels; allowed is {mask_size} × {mask_size}: "
            "copy it again from the archive"
        )
    if file.mode not in _MODES:
        raise InputError(
            f"{path} is of Pillow's mode {file.mode}; allowed are {', '.join(_MODES)}: save it as one of them"
        )
    values = np.atleast_3d(np.asarray(file.convert("RGB") if file.mode == "P" else file))
    part: npt.NDArray[np.bool_] = values[:, :, 0] != 0
    for channel in range(1, values.shape[2]):  # ten times as fast as any(axis=2)
        part |= values[:, :, channel] != 0
    # some tools read a palette's indices and some its colours
    if file.mode == "P" and not np.array_equal(part, np.asarray(file) != 0):
        raise InputError(
            f"{path} has a palette in which black is not index 0 alone, so that the mask is ambiguous: save it in grey"
        )
    return part

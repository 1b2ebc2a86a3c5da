"""Decoding of one face: its image, and its label map, combined from one mask file for each part of the face."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.splits import Pixels
from trainables.data.files.source_files import SourceFile, check_colours, open_image

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Classes in the authors' order, in which a later mask is painted over an earlier one."""

_MODES = ("1", "L", "P", "RGB")
"""Pillow's modes that masks may have: black and white, grey, palette, colour."""


class Portrait(NamedTuple):
    """The files of one face."""

    image: SourceFile
    masks: tuple[tuple[int, SourceFile], ...]
    """Class and file of each mask, by ascending class."""


class Resolution(NamedTuple):
    """Side in pixels of the decoded arrays and of the mask files."""

    size: int
    mask_size: int


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

"""One face from its files: the image, and the labels that its masks, one file a part, make together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.splits import Pixels

CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""In the authors' order, in which a later one is painted over an earlier one."""

_MODES = ("1", "L", "P", "RGB")
"""Pillow's, of masks: black and white, grey, with a palette, in colours."""


class SourceFile(NamedTuple):
    """A file as a folder lists it."""

    path: str
    size_bytes: int
    changed_ns: int

    @property
    def name(self) -> str:
        return Path(self.path).name


class Portrait(NamedTuple):
    """The files of one face."""

    image: SourceFile
    masks: tuple[tuple[int, SourceFile], ...]
    """By class, ascending."""


class Resolution(NamedTuple):
    """Pixels at each side, of what is decoded and of the masks' files."""

    size: int
    mask_size: int


def decode_portrait(portrait: Portrait, resolution: Resolution) -> tuple[Pixels, Pixels]:
    """The image (3, H, W) and the labels (H, W) of a face, those at the nearest of the masks' pixels.

    Raises InputError for a file that cannot be decoded, an image that is not square or too small, a mask of another
    size, and a mask of which it is not clear what is black.
    """
    size, mask_size = resolution
    labels = np.zeros((mask_size, mask_size), dtype=np.uint8)
    for number, mask in portrait.masks:
        labels[_decode_mask(mask.path, mask_size)] = number
    nearest = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    image = _decode_image(portrait.image.path, size)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), np.array(nearest)


def _decode_image(path: str, size: int) -> Pixels:
    """A square image (H, W, 3), reduced with Pillow's bilinear filter, which does not alias.

    A JPEG has no checksum: changed bytes in its scan decode silently, to other pixels.
    """
    file = open_image(path)
    if file.width != file.height or file.width < size:
        raise InputError(
            f"{path} has {file.width} × {file.height} pixels; allowed are squares of {size} pixels or more: "
            "copy it anew from the archive, or give a smaller size"
        )
    return np.asarray(file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _decode_mask(path: str, mask_size: int) -> npt.NDArray[np.bool_]:
    """Where a mask is not black: (H, W)."""
    file = open_image(path)
    if file.size != (mask_size, mask_size):
        raise InputError(
            f"{path} has {file.width} × {file.height} pixels; allowed is {mask_size} × {mask_size}: "
            "copy it anew from the archive"
        )
    if file.mode not in _MODES:
        raise InputError(
            f"{path} is of Pillow's mode {file.mode}; allowed are {', '.join(_MODES)}: save it as one of them"
        )
    values = np.atleast_3d(np.asarray(file.convert("RGB") if file.mode == "P" else file))
    part: npt.NDArray[np.bool_] = values[:, :, 0] != 0
    for channel in range(1, values.shape[2]):  # ten times as fast as any(axis=2)
        part |= values[:, :, channel] != 0
    # of a palette, some tools read the numbers and some the colours
    if file.mode == "P" and not np.array_equal(part, np.asarray(file) != 0):
        raise InputError(
            f"{path} has a palette in which black is not number 0 alone: what is part of the mask is not clear; "
            "save it in grey"
        )
    return part


def open_image(path: str, whole: bool = True) -> Image.Image:
    """An image file; if not `whole`, its header alone. Raises InputError if it cannot be decoded."""
    try:
        file = Image.open(path)
        if whole:
            file.load()
    # a damaged file may raise any of these, by where the damage is
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}): copy it anew from the archive") from None
    return file

"""Five points of a face, as tables of landmarks have them, and the boxes of eyes, nose and mouth that follow from them.

Left out: how points are found. They come with the data.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from study.errors import InputError

Crop = tuple[int, int, int, int]
"""Left, top, right and bottom of what is cut out of an image, in pixels."""

Boxes = npt.NDArray[np.float32]

ORDER = "x and y of left eye, right eye, nose, left and right corner of the mouth, left as in the picture"
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_CORNER, RIGHT_CORNER = range(5)

POINTS, BOX = 10, 4
"""How many numbers follow the name in a row of points, and in one of x, y, width and height."""

HALF_SIDES = np.array([0.45, 0.45, 0.35, 0.6])
RAISED = np.array([0.15, 0.15, 0.15, 0.0])
"""Of the boxes of COMPONENTS (face_features.py), by the distance of the eyes: an eye's box has its brow in it."""

LEAST = 32
"""A box reaches at least 1/32 of the image to each side, however near to each other a profile's eyes are.

Source: Li et al. 2020 (DFDNet), whose boxes at 512 pixels do so: 16 pixels.
"""


def read_rows(
    path: Path, numbers: int, wanted: Callable[[str, Sequence[float]], bool] = lambda name, values: True
) -> dict[str, Sequence[float]]:
    """By the name in a row's first column the numbers that follow it, of the rows that are wanted.

    A first line that has no numbers is a header: columns are known by their position.
    Raises InputError for a file that cannot be read or has no rows, a row of another length or with what is no finite
    number, and a second row of one name.
    """
    rows: dict[str, Sequence[float]] = {}
    count = 0
    for line, row in _read_lines(path):
        values = _parse_numbers(row, numbers)
        if values is None and line == 1:
            continue
        if values is None or row[0] in rows:
            what = f"is no name and {numbers} numbers" if values is None else "is a second row of its image"
            raise InputError(f"{path}: line {line}, {','.join(row)[:60]!r}, {what}; copy it anew from the archive")
        count += 1
        if wanted(row[0], values):
            rows[row[0]] = values
    if not count:
        raise InputError(f"{path} has no rows of a name and {numbers} numbers; copy it anew from the archive")
    return rows


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, each with its number."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.reader(file, skipinitialspace=True)
            yield from ((reader.line_num, row) for row in reader if row)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): copy it from the archive") from None
    except csv.Error as error:
        raise InputError(f"{path} is no table ({error}); copy it anew from the archive") from None


def _parse_numbers(row: list[str], numbers: int) -> Sequence[float] | None:
    """A row's numbers; None if these are not what they should be."""
    try:
        values = array("d", map(float, row[1:]))  # not a list: a table may have millions of rows
    except ValueError:
        return None
    return values if len(values) == numbers and all(map(math.isfinite, values)) else None


def find_disorder(points: Sequence[float]) -> str:
    """What shows that five points are no upright face's, or in another order; empty if nothing does."""
    xs, ys = points[0::2], points[1::2]
    if xs[LEFT_EYE] >= xs[RIGHT_EYE]:
        return "its left eye right of its right eye"
    if ys[LEFT_EYE] + ys[RIGHT_EYE] >= ys[LEFT_CORNER] + ys[RIGHT_CORNER]:
        return "its eyes below its mouth"
    return ""


def lie_inside(points: Sequence[float], crop: Crop) -> bool:
    left, top, right, bottom = crop
    xs, ys = points[0::2], points[1::2]
    return left <= min(xs) and max(xs) <= right and top <= min(ys) and max(ys) <= bottom


def compute_component_boxes(points: Sequence[Sequence[float]], crops: Sequence[Crop], size: int) -> Boxes:
    """Boxes (N, 4, 4) of COMPONENTS in N square crops resized to `size` pixels: left, top, right, bottom.

    Squares about both eyes, the tip of the nose and the middle of the mouth, their sides 0.9, 0.9, 0.7 and 1.2 times
    the distance of the eyes; all but the mouth's raised by 0.15 of it. They end where the image ends.
    """
    corners = np.array(crops, dtype=np.float64).reshape(-1, 4)
    sides = corners[:, 2] - corners[:, 0]
    placed = np.array(points, dtype=np.float64).reshape(-1, 5, 2) - corners[:, None, :2]
    placed *= size / sides[:, None, None]
    distance = np.linalg.norm(placed[:, RIGHT_EYE] - placed[:, LEFT_EYE], axis=1)[:, None]
    mouth = (placed[:, LEFT_CORNER] + placed[:, RIGHT_CORNER]) / 2
    middles = np.stack([placed[:, LEFT_EYE], placed[:, RIGHT_EYE], placed[:, NOSE], mouth], axis=1)
    middles[:, :, 1] -= RAISED * distance
    half = np.maximum(HALF_SIDES * distance, size / LEAST)[:, :, None]
    boxes: Boxes = np.concatenate([middles - half, middles + half], axis=2).clip(0, size).astype(np.float32)
    return boxes

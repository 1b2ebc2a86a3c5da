"""Five landmarks of a face, read from tables, and the boxes of eyes, nose and mouth computed from them.

Not included: the detection of landmarks; they come with the data.
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
"""Left, top, right and bottom of a crop, in pixels of the image."""

Boxes = npt.NDArray[np.float32]

ORDER = "x and y of left eye, right eye, nose, left and right corner of the mouth, left as in the picture"
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_CORNER, RIGHT_CORNER = range(5)

POINTS, BOX = 10, 4
"""Numbers after the name in a row of landmarks, and in a row of a box: x, y, width and height."""

HALF_SIDES = np.array([0.45, 0.45, 0.35, 0.6])
RAISED = np.array([0.15, 0.15, 0.15, 0.0])
"""Half side of the box of each of COMPONENTS and its shift upwards, over the distance of the eyes. The shift makes an
eye's box include its brow."""

LEAST = 32
"""Least half side of a box: 1/32 of the image, since in a profile the eyes may lie close together.

Source: Li et al. 2020 (DFDNet), 16 pixels at 512.
"""


def read_rows(
    path: Path, numbers: int, wanted: Callable[[str, Sequence[float]], bool] = lambda name, values: True
) -> dict[str, Sequence[float]]:
    """Return the numbers of each row under the name in its first column, for the rows that `wanted` accepts.

    A first line without numbers is a header; columns are identified by position.
    Raises InputError for a file that cannot be read or has no rows, a row of another length or with anything but
    finite numbers, and a second row of one name.
    """
    rows: dict[str, Sequence[float]] = {}
    count = 0
    for line, row in _read_lines(path):
        values = _parse_numbers(row, numbers)
        if values is None and line == 1:
            continue
        if values is None or row[0] in rows:
            what = f"is not a name and {numbers} numbers" if values is None else "is a second row for its image"
            raise InputError(f"{path}: line {line}, {','.join(row)[:60]!r}, {what}; copy it again from the archive")
        count += 1
        if wanted(row[0], values):
            rows[row[0]] = values
    if not count:
        raise InputError(f"{path} has no rows of a name and {numbers} numbers; copy it again from the archive")
    return rows


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:  # Excel begins it with a mark
            reader = csv.reader(file, skipinitialspace=True)
            yield from ((reader.line_num, row) for row in reader if row)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): copy it from the archive") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a table ({error}); copy it again from the archive") from None


def _parse_numbers(row: list[str], numbers: int) -> Sequence[float] | None:
    """Return a row's numbers; None if there are not `numbers` of them, or if one is not finite."""
    try:
        values = array("d", map(float, row[1:]))  # smaller than a list: a table may have millions of rows
    except ValueError:
        return None
    return values if len(values) == numbers and all(map(math.isfinite, values)) else None


def find_disorder(points: Sequence[float]) -> str:
    """Return the reason why five points cannot be an upright face in the order ORDER; empty if they can."""
    xs, ys = points[0::2], points[1::2]
    if xs[LEFT_EYE] >= xs[RIGHT_EYE]:
        return "its left eye right of its right eye"
    if ys[LEFT_EYE] + ys[RIGHT_EYE] >= ys[LEFT_CORNER] + ys[RIGHT_CORNER]:
        return "its eyes below its mouth"
    return ""


def lie_inside(points: Sequence[float], crop: Crop) -> bool:
    """Return True if all points lie in the crop."""
    left, top, right, bottom = crop
    xs, ys = points[0::2], points[1::2]
    return left <= min(xs) and max(xs) <= right and top <= min(ys) and max(ys) <= bottom


def compute_component_boxes(points: Sequence[Sequence[float]], crops: Sequence[Crop], size: int) -> Boxes:
    """Return boxes (N, 4, 4) of COMPONENTS in N square crops resized to `size` pixels: left, top, right, bottom.

    They are squares around both eyes, the tip of the nose and the centre of the mouth, with sides 0.9, 0.9, 0.7 and 1.2
    times the distance of the eyes, clipped to the image; all but the mouth's are raised by 0.15 of the distance.
    """
    corners = np.array(crops, dtype=np.float64).reshape(-1, 4)
    sides = corners[:, 2] - corners[:, 0]
    scaled = np.array(points, dtype=np.float64).reshape(-1, 5, 2) - corners[:, None, :2]
    scaled *= size / sides[:, None, None]  # (N, 5, 2), in pixels of the resized crop
    distance = np.linalg.norm(scaled[:, RIGHT_EYE] - scaled[:, LEFT_EYE], axis=1)[:, None]
    mouth = (scaled[:, LEFT_CORNER] + scaled[:, RIGHT_CORNER]) / 2
    centres = np.stack([scaled[:, LEFT_EYE], scaled[:, RIGHT_EYE], scaled[:, NOSE], mouth], axis=1)
    centres[:, :, 1] -= RAISED * distance
    half = np.maximum(HALF_SIDES * distance, size / LEAST)[:, :, None]
    boxes: Boxes = np.concatenate([centres - half, centres + half], axis=2).clip(0, size).astype(np.float32)
    return boxes

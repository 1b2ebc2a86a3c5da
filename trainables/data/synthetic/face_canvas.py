"""Canvas on which faces are drawn, with image and class map in parallel, the drawn person's traits, and basic shapes.

Coordinates are the head's: (0, 0) is its centre, the top of the skull is at y = −1, the chin at 1, and negative x is
left in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from trainables.data.arrays.face_parsing import CLASSES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Person:
    """Traits that several parts of a face depend on; colours are RGB (3,), from 0 to 255."""

    half_width: float
    """Half width of the head."""
    turn: float
    """Rotation of the head in radians, to the right of the image."""
    skin: Floats
    hair: Floats
    long_hair: bool
    bald: bool
    frame: Floats | None
    """Colour of the glasses, if the person wears any."""
    enlarged: float
    """Size of the features relative to life, see `Looks`."""

    def project(self, points: Floats, depth: float = 1.0) -> Floats:
        """Project points (N, 2) on the front of the turned head, a cylinder; `depth` > 1 lies in front of it."""
        angle = np.arcsin(np.clip(points[:, 0] / self.half_width, -1, 1)) + self.turn
        return np.stack([depth * self.half_width * np.sin(angle), points[:, 1]], axis=1)


class Canvas:
    """An image and the class of each pixel, drawn at a multiple of their final size."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.size, self.finer = size, 4 if size <= 128 else 2
        self.picture = Image.new("RGB", (size * self.finer, size * self.finer))
        self._classes = Image.new("L", self.picture.size)
        self._drawing = ImageDraw.Draw(self.picture), ImageDraw.Draw(self._classes)
        self.middle = size * np.array([0.5 + rng.normal(0, 0.015), rng.uniform(0.43, 0.47)])
        self.unit = size * rng.uniform(0.32, 0.38)
        angle = rng.normal(0, 0.1)
        self.rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def paint(self, points: Floats, colour: Floats, part: str | None = None, upright: bool = False) -> Floats:
        """Draw a polygon (N, 2), which gets the class `part`, or without one keeps the classes below it.

        An `upright` polygon does not lean with the head. Returns the corners (N, 2) in pixels of the final image.
        """
        placed = self.middle + self.unit * (points if upright else points @ self.rotation.T)
        corners = (placed * self.finer).ravel().tolist()
        picture, classes = self._drawing
        picture.polygon(corners, fill=to_rgb(colour))
        if part is not None:
            classes.polygon(corners, fill=CLASSES.index(part))
        return placed

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """Class at the centre of each final pixel, (H, W)."""
        middles = slice(self.finer // 2, None, self.finer)
        return np.asarray(self._classes)[middles, middles].copy()


def make_ellipse(
    x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 2 * math.pi, power: float = 2.0
) -> Floats:
    """Return points (32, 2) of |dx/width|^power + |dy/height|^power = 1 between two angles, clockwise in the image."""
    angles = np.linspace(start, stop, 32)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape: Floats = np.sign(circle) * np.abs(circle) ** (2 / power) * [width, height] + [x, y]
    return shape


def make_rectangle(left: float, top: float, right: float, bottom: float) -> Floats:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def make_band(columns: Floats, upper: Floats, lower: Floats) -> Floats:
    """Return the polygon (2N, 2) between two curves (N,) over the same columns (N,)."""
    return np.concatenate([np.stack([columns, upper], axis=1), np.stack([columns, lower], axis=1)[::-1]])


def compute_bounding_box(*points: Floats) -> Floats:
    """Return the bounding box (4,) of points (N, 2): left, top, right, bottom."""
    corners = np.concatenate(points)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def to_rgb(colour: Floats) -> tuple[int, int, int]:
    """Return a colour (3,) as whole levels from 0 to 255."""
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue

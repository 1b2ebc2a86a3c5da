"""What a drawn face is painted with: a canvas that keeps picture and classes alike, the person, and plain shapes.

Coordinates are those of the head: its middle is (0, 0), the top of the skull at −1, the chin at 1, and negative columns
are left in the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from trainables.data.arrays.face_decoding import CLASSES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Person:
    """What more than one part of a face depends on."""

    half_width: float
    """Of the head."""
    turn: float
    """Radians by which the head is turned, to the right of the picture."""
    skin: Floats
    hair: Floats
    long_hair: bool
    bald: bool
    frame: Floats | None
    """The colour of the glasses, if there are any."""
    enlarged: float

    def project(self, points: Floats, depth: float = 1.0) -> Floats:
        """Points on the front of the head, a cylinder, after it has turned; what stands out has a `depth` above 1."""
        angle = np.arcsin(np.clip(points[:, 0] / self.half_width, -1, 1)) + self.turn
        return np.stack([depth * self.half_width * np.sin(angle), points[:, 1]], axis=1)


class Canvas:
    """A picture and the class of each of its pixels, painted several times larger than they will be."""

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
        """A polygon (N, 2), of a class or, without one, of those that lie below it.

        Returns its corners in the final picture. What is `upright` does not lean with the head.
        """
        placed = self.middle + self.unit * (points if upright else points @ self.rotation.T)
        corners = (placed * self.finer).ravel().tolist()
        picture, classes = self._drawing
        picture.polygon(corners, fill=_to_rgb(colour))
        if part is not None:
            classes.polygon(corners, fill=CLASSES.index(part))
        return placed

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """The class in the middle of each final pixel: (H, W)."""
        middles = slice(self.finer // 2, None, self.finer)
        return np.asarray(self._classes)[middles, middles].copy()


def make_ellipse(
    x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 2 * math.pi, power: float = 2.0
) -> Floats:
    """|dx/width|^power + |dy/height|^power = 1 from one angle to another, clockwise in the picture: (32, 2)."""
    angles = np.linspace(start, stop, 32)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape: Floats = np.sign(circle) * np.abs(circle) ** (2 / power) * [width, height] + [x, y]
    return shape


def make_rectangle(left: float, top: float, right: float, bottom: float) -> Floats:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def make_band(columns: Floats, upper: Floats, lower: Floats) -> Floats:
    """What lies between two curves over the same columns."""
    return np.concatenate([np.stack([columns, upper], axis=1), np.stack([columns, lower], axis=1)[::-1]])


def compute_bounding_box(*points: Floats) -> Floats:
    """The box around points (N, 2): left, top, right, bottom."""
    corners = np.concatenate(points)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _to_rgb(colour: Floats) -> tuple[int, int, int]:
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue

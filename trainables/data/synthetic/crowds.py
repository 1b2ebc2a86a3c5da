"""Drawn crowds with exact head points: perspective, occlusion, distractors; no download.

They are written once in ShanghaiTech's layout and read by its loader, so that a study on them exercises the same files
and code as one on photographs. Results on them are no evidence about photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import ensure_files, get_cache_folder
from trainables.data.shanghaitech import CrowdSet, Points, read_dataset
from trainables.data.synthetic.face_canvas import to_rgb

_DRAWING = 1
"""Version of the drawing code, part of the cache key: change it with the images."""

_FINER = 2
"""Scenes are drawn at this multiple of their size and averaged, for smooth edges."""

_DEEPEST = 0.92
"""Lowest position of a head, as a share of the ground's height; the rest leaves room for bodies."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class DrawnCrowds:
    """Scenes of `fewest` to `most` people, uniform on a logarithmic scale.

    Raises InputError for images smaller than 32 pixels, splits of fewer than two images, or an empty range of people.
    """

    train: int = 300
    test: int = 150
    height: int = 96
    width: int = 128
    fewest: int = 5
    most: int = 120
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 2 or min(self.height, self.width) < 32 or not 1 <= self.fewest < self.most:
            raise InputError(
                f"{self}: allowed are 2 images or more per split, 32 pixels or more, and 1 ≤ fewest < most"
            )

    @property
    def name(self) -> str:
        return "drawn crowds"

    def load(self) -> CrowdSet:
        """Read the scenes, which are drawn on first use. Raises InputError if they cannot be written."""
        folder = get_cache_folder("crowds") / digest(_DRAWING, self)
        ensure_files(folder, self.name, self._draw_files)
        return read_dataset(folder, self.name, self.train, self.test)

    def _draw_files(self, folder: Path) -> None:
        for number, (split, count) in enumerate((("train", self.train), ("test", self.test))):
            rng = np.random.default_rng([self.seed, number])
            for index in range(count):
                write_scene(folder / f"{split}_data", index + 1, *draw_scene(rng, self))


def write_scene(folder: Path, number: int, image: Image.Image, heads: Points) -> None:
    """Write an image and its heads (N, 2), counted from 0, as files of a split's folder."""
    for part in ("images", "ground_truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    image.save(folder / "images" / f"IMG_{number}.jpg", quality=95)
    info = np.empty((1, 1), dtype=object)
    info[0, 0] = {"location": heads + 1, "number": len(heads)}
    savemat(folder / "ground_truth" / f"GT_IMG_{number}.mat", {"image_info": info})


def draw_scene(rng: np.random.Generator, crowds: DrawnCrowds) -> tuple[Image.Image, Points]:
    """Draw one scene; return it with its heads (N, 2), from the farthest to the nearest."""
    height, width = crowds.height, crowds.width
    horizon = rng.uniform(0.05, 0.35) * height
    near = rng.uniform(0.055, 0.11) * height
    far = near * rng.uniform(0.12, 0.35)
    people = round(math.exp(rng.uniform(math.log(crowds.fewest), math.log(crowds.most))))
    heads = _sample_heads(rng, people, horizon, height, width)

    picture = Image.new("RGB", (width * _FINER, height * _FINER))
    canvas = ImageDraw.Draw(picture)
    _draw_background(rng, canvas, horizon, height, width)
    for x, y in heads:
        depth = (y - horizon) / (height - horizon)
        radius = max(0.8, (far + (near - far) * depth) * rng.uniform(0.85, 1.15))
        _draw_person(rng, canvas, x, y, radius)
    return _add_camera_noise(rng, picture.resize((width, height), Image.Resampling.BOX)), heads


def _sample_heads(rng: np.random.Generator, people: int, horizon: float, height: int, width: int) -> Points:
    """Sample heads (N, 2) in groups and alone on the ground plane, denser in the image towards the horizon."""
    groups = rng.uniform(0, 1, (rng.integers(1, 5), 2))
    found: list[tuple[float, float]] = []
    while len(found) < people:
        middle = groups[rng.integers(len(groups))]
        across, away = rng.normal(middle, 0.18) if rng.random() < 0.7 else rng.uniform(0, 1, 2)
        if 0 <= across < 1 and 0 <= away < 1:
            y = horizon + (height - horizon) * (0.04 + (_DEEPEST - 0.04) * away**1.8)
            found.append((across * (width - 1), y))
    return np.array(sorted(found, key=lambda head: head[1]))


def _draw_background(
    rng: np.random.Generator, canvas: ImageDraw.ImageDraw, horizon: float, height: int, width: int
) -> None:
    """Draw sky, ground and distractors, some of them as round as heads."""
    _draw_shape(canvas, 0, 0, width, horizon, _sample_colour(rng, 90, 230))
    _draw_shape(canvas, 0, horizon, width, height, _sample_colour(rng, 50, 170))
    for _ in range(rng.integers(4, 14)):
        x, y = rng.uniform(0, width), rng.uniform(0, 0.9 * height)
        w, h = rng.uniform(0.03, 0.3) * height, rng.uniform(0.03, 0.4) * height
        _draw_shape(canvas, x, y, x + w, y + h, _sample_colour(rng, 20, 230), is_ellipse=rng.random() < 0.3)


def _draw_person(rng: np.random.Generator, canvas: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    """Draw body, face and hair around a head at (x, y) of radius r, in pixels."""
    skin = np.array([235, 200, 170]) * rng.uniform(0.35, 1.05)
    hair = np.array([1, 0.85, 0.7]) * rng.uniform(10, 90)
    _draw_shape(canvas, x - 1.5 * r, y + 0.9 * r, x + 1.5 * r, y + 6 * r, _sample_colour(rng, 10, 245), is_ellipse=True)
    _draw_shape(canvas, x - r, y - 1.1 * r, x + r, y + 1.2 * r, to_rgb(skin), is_ellipse=True)
    left, right = rng.uniform(0, 40, 2)
    corners = [value * _FINER for value in (x - 1.05 * r, y - 1.2 * r, x + 1.05 * r, y + 0.9 * r)]
    canvas.pieslice(corners, 180 - left, 360 + right, fill=to_rgb(hair))


def _add_camera_noise(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Change the exposure and add noise."""
    pixels = np.asarray(picture, dtype=np.float64)
    noise = rng.normal(0, rng.uniform(2, 8), pixels.shape)
    return Image.fromarray(np.clip(pixels * rng.uniform(0.6, 1.15) + noise, 0, 255).astype(np.uint8))


def _draw_shape(
    canvas: ImageDraw.ImageDraw,
    left: float,
    top: float,
    right: float,
    bottom: float,
    fill: Colour,
    is_ellipse: bool = False,
) -> None:
    shape = canvas.ellipse if is_ellipse else canvas.rectangle
    shape([left * _FINER, top * _FINER, right * _FINER, bottom * _FINER], fill=fill)


def _sample_colour(rng: np.random.Generator, low: float, high: float) -> Colour:
    return to_rgb(rng.uniform(low, high, 3))

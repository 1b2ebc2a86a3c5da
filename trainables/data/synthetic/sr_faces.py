"""Drawn faces for super-resolution, in VGGFace2's layout with exact landmarks; no download.

They are written once and read by the dataset's loader, so that a study on them exercises the same files and code as one
on photographs. Boxes too are computed from landmarks, as for photographs: squares around the components instead of
their outlines. Results on them are no evidence about photographs.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from study.errors import InputError
from study.identity import digest
from trainables.data import vggface2
from trainables.data.arrays.cache import ensure_files, get_cache_folder
from trainables.data.arrays.face_sr import SrSet
from trainables.data.arrays.landmarks import RAISED
from trainables.data.synthetic.face_canvas import Floats
from trainables.data.synthetic.face_drawing import Looks, draw_face

LOOKS = Looks(enlarged=1.3)
"""Eyes and lips somewhat larger than life: in an image of 64 pixels reduced 8 times they would otherwise vanish."""

_DRAWING = 1
"""Version of drawing and layout, part of the cache key: change it with the files."""


@dataclass(frozen=True)
class DrawnSrFaces:
    """Square images of `size` pixels, each of a different person.

    Raises InputError for an empty split and fewer than 32 pixels.
    """

    train: int = 300
    val: int = 32
    test: int = 96
    size: int = 64
    looks: Looks = LOOKS
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.size < vggface2.SMALLEST:
            raise InputError(f"{self}: allowed are 1 image or more per split, {vggface2.SMALLEST} pixels or more")

    @property
    def name(self) -> str:
        return "drawn faces"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test

    def load(self) -> SrSet:
        """Read the faces, which are drawn on first use. Raises InputError if they cannot be written."""
        held_out = self.val / (self.train + self.val)
        return vggface2.read_dataset(self.ensure_drawn(), self.name, self.size, self.sizes, held_out, complete=True)

    def ensure_drawn(self) -> Path:
        """Return the folder of the faces, which are drawn on first use. Raises InputError if they cannot be written."""
        folder = get_cache_folder("drawn-sr-faces") / digest(_DRAWING, self)
        return ensure_files(folder, self.name, self._draw_files)

    def _draw_files(self, folder: Path) -> None:
        (folder / "bb_landmark").mkdir()
        people = 0
        for number, (split, count) in enumerate((("train", self.train + self.val), ("test", self.test))):
            rng = np.random.default_rng([self.seed, number])
            names = [f"n{person:06d}/0001_01" for person in range(people + 1, people + count + 1)]
            people += count
            points = [self._draw_photo(rng, folder / split / f"{name}.jpg") for name in names]
            side = math.ceil(self.size / vggface2.EXTENDED)  # extended, it covers the full image
            boxes = [((self.size - side) // 2,) * 2 + (side, side)] * count
            _write_table(folder, vggface2.BOXES.format(split), "X,Y,W,H", names, boxes)
            header = ",".join(f"P{point}{axis}" for point in range(1, 6) for axis in "XY")
            _write_table(folder, vggface2.LANDMARKS.format(split), header, names, points)

    def _draw_photo(self, rng: np.random.Generator, path: Path) -> list[float]:
        """Draw the next face to a file, and return its landmarks."""
        face = draw_face(rng, self.size, self.looks)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face.image).save(path, quality=95, subsampling=0)
        return invert_boxes(face.boxes).round(3).ravel().tolist()


def invert_boxes(boxes: Floats) -> Floats:
    """Return the landmarks (5, 2) whose boxes have the same centres as the given ones (4, 4), in pixels."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres[:, 1] += RAISED * np.linalg.norm(centres[1] - centres[0])
    left_eye, right_eye, nose, mouth = centres
    half = np.array([(boxes[3, 2] - boxes[3, 0]) / 2, 0])
    return np.stack([left_eye, right_eye, nose, mouth - half, mouth + half])


def _write_table(folder: Path, file: str, header: str, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    with (folder / "bb_landmark" / file).open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["NAME_ID", *header.split(",")])
        writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))

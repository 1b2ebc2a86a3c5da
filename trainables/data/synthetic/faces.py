"""Drawn faces in CelebAMask-HQ's layout, with exact masks and boxes of eyes, nose and mouth; no download.

They are written once and read by the dataset's loader, so that a study on them exercises the same files and code as one
on photographs. Results on them are no evidence about photographs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import ensure_files, get_cache_folder
from trainables.data.arrays.face_parsing import CLASSES, Resolution
from trainables.data.arrays.label_maps import LabelMapSet
from trainables.data.celebamask import FIRST_TEST, FIRST_VAL, IMAGES, MAPPING, MASKS, PER_FOLDER, SMALLEST, read_dataset
from trainables.data.synthetic.face_drawing import AT_64_PIXELS, DrawnFace, Looks, draw_face
from trainables.models.sr.common import COMPONENTS

BOXES = "component_boxes.csv"
"""A table with a row for each image and component: `idx,component,left,top,right,bottom`, in pixels."""

_DRAWING = 1
"""Version of the drawing code, part of the cache key: change it with the images."""


@dataclass(frozen=True)
class DrawnFaces:
    """Square images of `size` pixels.

    Raises InputError for an empty split and fewer than 32 pixels.
    """

    train: int = 512
    val: int = 64
    test: int = 192
    size: int = 64
    looks: Looks = AT_64_PIXELS
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.size < SMALLEST:
            raise InputError(f"{self}: allowed are 1 image or more per split, {SMALLEST} pixels or more")

    @property
    def name(self) -> str:
        return "drawn faces"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test

    def load(self) -> LabelMapSet:
        """Read the faces, which are drawn on first use. Raises InputError if they cannot be written."""
        return read_dataset(self.ensure_drawn(), self.name, self.sizes, Resolution(self.size, mask_size=self.size))

    def ensure_drawn(self) -> Path:
        """Return the folder of the faces and their boxes, which are drawn on first use.

        Raises InputError if they cannot be written.
        """
        folder = get_cache_folder("drawn-faces") / digest(_DRAWING, self)
        return ensure_files(folder, self.name, self._draw_files)

    def _draw_files(self, folder: Path) -> None:
        rows, boxes, number = ["idx orig_idx orig_file"], [], 0
        for split, (count, first) in enumerate(zip(self.sizes, (0, FIRST_VAL, FIRST_TEST), strict=True)):
            rng = np.random.default_rng([self.seed, split])
            for original in range(first, first + count):
                face = draw_face(rng, self.size, self.looks)
                write_face(folder, number, face)
                rows.append(f"{number} {original} {original + 1:06d}.jpg")
                boxes += [(number, *row) for row in zip(COMPONENTS, *face.boxes.T.round(3).tolist(), strict=True)]
                number += 1
        (folder / MAPPING).write_text("\n".join(rows) + "\n")
        with (folder / BOXES).open("w", newline="") as file:
            csv.writer(file).writerows([("idx", "component", "left", "top", "right", "bottom"), *boxes])


def write_face(folder: Path, number: int, face: DrawnFace) -> None:
    """Write a face as files of the dataset's folder: its image, and a mask for each visible part."""
    masks = folder / MASKS / str(number // PER_FOLDER)
    for parent in (folder / IMAGES, masks):
        parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face.image).save(folder / IMAGES / f"{number}.jpg", quality=95, subsampling=0)
    for label in np.unique(face.labels).tolist():
        if label:
            mask = Image.fromarray(np.where(face.labels == label, 255, 0).astype(np.uint8))
            mask.save(masks / f"{number:05d}_{CLASSES[label]}.png")

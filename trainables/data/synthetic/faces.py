"""Drawn faces in CelebAMask-HQ's own layout, with exact masks and exact boxes of eyes, nose and mouth; no download.

They are written once and read by the dataset's own loader, so that whoever tries a study on them has also tried the
files and code that real photographs take. They say nothing about real photographs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make, verify_checksum, write_checksum
from trainables.data.arrays.face_decoding import CLASSES, Resolution
from trainables.data.arrays.face_parsing import FaceSet
from trainables.data.celebamask import FIRST_TEST, FIRST_VAL, IMAGES, MAPPING, MASKS, PER_FOLDER, SMALLEST, read_dataset
from trainables.data.synthetic.face_drawing import AT_64_PIXELS, DrawnFace, Looks, draw_face
from trainables.models.sr.common import COMPONENTS

BOXES = "component_boxes.csv"
"""Beside the mapping: a row for each image and component, `idx,component,left,top,right,bottom`, in pixels."""

_DRAWING = 1
"""Which version of the drawing code the images come from: part of their folder's name."""


@dataclass(frozen=True)
class DrawnFaces:
    """Square pictures of `size` pixels.

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
            raise InputError(f"{self}: allowed are 1 image or more a split, {SMALLEST} pixels or more")

    @property
    def name(self) -> str:
        return "drawn faces"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test

    def load(self) -> FaceSet:
        """Draw the faces, unless they lie there as they were drawn before, and read them.

        Raises InputError if they cannot be written.
        """
        return read_dataset(self.ensure_drawn(), self.name, self.sizes, Resolution(self.size, mask_size=self.size))

    def ensure_drawn(self) -> Path:
        """Where the faces lie, drawn now if they were not before, and beside them their boxes.

        Raises InputError if they cannot be written.
        """
        folder = get_cache_folder("drawn-faces") / digest(_DRAWING, self)
        return load_or_make(folder, self.name, read=verify_checksum, make=self._draw_files)

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
        write_checksum(folder)


def write_face(folder: Path, number: int, face: DrawnFace) -> None:
    """A face as files of a dataset's folder: its image, and a mask for each part that is seen."""
    masks = folder / MASKS / str(number // PER_FOLDER)
    for parent in (folder / IMAGES, masks):
        parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face.image).save(folder / IMAGES / f"{number}.jpg", quality=95, subsampling=0)
    for label in np.unique(face.labels).tolist():
        if label:
            mask = Image.fromarray(np.where(face.labels == label, 255, 0).astype(np.uint8))
            mask.save(masks / f"{number:05d}_{CLASSES[label]}.png")

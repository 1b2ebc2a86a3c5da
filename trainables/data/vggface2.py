"""VGGFace2: photographs of the faces of 9,131 people, each with a box and five landmarks, in the authors' own layout.

Nothing is downloaded: the authors no longer distribute it. Most of its faces are too small for super-resolution; a
study uses a subset of the others, the same one on every machine. Not included: identities.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.face_sr import (
    Photo,
    Selection,
    SrSet,
    hash_to_fraction,
    load_sr_faces,
    move_copies,
)
from trainables.data.arrays.landmarks import BOX, ORDER, POINTS, Crop, find_disorder, lie_inside, read_rows
from trainables.data.files.source_files import read_image_header, stat_file
from trainables.data.folders import find_folder, make_root_absolute

BOXES, LANDMARKS = "loose_bb_{}.csv", "loose_landmark_{}.csv"
TABLES = ("bb_landmark", "meta/bb_landmark")
"""Folder of the tables in the copies in circulation."""

EXTENDED = 1.3
"""Side of the cropped square over the longer side of the face's box. Source: Cao et al. 2018, who extend boxes by a
factor of 0.3 to include the whole head."""

HELD_OUT = 0.05
"""The share of people in the train folder whose faces are used for validation alone."""

_SPLITTING = "copies of train moved from val"
"""Part of the cache key: change it with the splits."""

SMALLEST = 32
"""Least side of an image in pixels."""


@dataclass(frozen=True)
class VGGFace2:
    """The dataset from `root`, the folder VGGFace2 or its parent, as squares of `size` pixels.

    Each split has the given number of faces, the first by the hash of their names; no two splits share a person. Of
    validation, faces with the pixels of a training face are moved there. No face is enlarged: smaller ones are left
    out, and the note of the loaded set counts them.
    Raises InputError for an empty split and fewer than 32 pixels.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = 256
    train: int = 20_000
    val: int = 500
    test: int = 1_000

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.size < SMALLEST:
            raise InputError(f"{self}: allowed are 1 face or more per split, {SMALLEST} pixels or more")
        make_root_absolute(self)

    @property
    def name(self) -> str:
        return "VGGFace2"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test

    def load(self) -> SrSet:
        """Choose and decode the faces on first use, for which all 3.3 million rows are read.

        Raises InputError for a folder or table that is missing, a malformed row, landmarks in another order, a chosen
        face without landmarks or whose image cannot be read, and fewer faces than were asked for.
        """
        folder = find_folder(self.name, self.root, ["VGGFace2"], ["train", "test"], "VGGFace2 archives")
        # never complete: papers do not say which of its faces their figures are for
        return read_dataset(folder, self.name, self.size, self.sizes, HELD_OUT, complete=False)


class _Tables(NamedTuple):
    """Paths of the tables of the train or the test folder."""

    split: str
    boxes: Path
    landmarks: Path


def read_dataset(
    folder: Path, name: str, size: int, sizes: tuple[int, int, int], held_out: float, complete: bool
) -> SrSet:
    """Read a dataset in the layout of VGGFace2: `sizes` faces per split, the share `held_out` of people in validation.

    Raises InputError as `VGGFace2.load` does.
    """
    tables = [_find_tables(folder, split) for split in ("train", "test")]
    listed = [stat_file(folder, str(path.relative_to(folder))) for _, *paths in tables for path in paths]
    key = [_SPLITTING, sizes, held_out, *(list(file) for file in listed)]
    return load_sr_faces(
        name, folder, key, size, lambda: _select_faces(folder, tables, size, sizes, held_out), complete
    )


def _find_tables(folder: Path, split: str) -> _Tables:
    found = []
    for table in (BOXES, LANDMARKS):
        candidates = [folder / place / table.format(split) for place in TABLES]
        paths = [path for path in candidates if path.is_file()]
        if not paths:
            raise InputError(f"neither {candidates[0]} nor {candidates[1]} exists: add the archive bb_landmark")
        found.append(paths[0])
    return _Tables(split, *found)


def _select_faces(
    folder: Path, tables: Sequence[_Tables], size: int, sizes: tuple[int, int, int], held_out: float
) -> Selection:
    pool, test = (_FacePool(folder, each, size) for each in tables)
    ranked = sorted(pool.people, key=hash_to_fraction)
    val_people = set(ranked[: max(1, round(held_out * len(ranked)))])
    chosen = (
        pool.take([name for name in pool.boxes if _parse_person(name) not in val_people], sizes[0], "train"),
        pool.take([name for name in pool.boxes if _parse_person(name) in val_people], sizes[1], "val"),
    )
    held = test.take(test.boxes, sizes[2], "test")
    train, val = move_copies(folder, *chosen, size)
    if not val:
        raise InputError(f"{folder}: all faces chosen for validation are copies of training faces; ask for more")
    moved = sizes[1] - len(val)
    copies = f"{moved:,} val {'face is a copy' if moved == 1 else 'faces are copies'} of train faces" if moved else ""
    copies += " and moved to train" if moved else ""
    notes = pool.describe_selection(), copies, test.describe_selection()
    return Selection((train, val, held), "; ".join(note for note in notes if note))


class _FacePool:
    """The faces of one folder whose boxes are large enough; with counts of those taken, left out and grey."""

    def __init__(self, folder: Path, tables: _Tables, size: int):
        self.people: set[str] = set()
        self._folder, self._tables, self._size = folder, tables, size
        self._all = self._small = self._taken = self._grey = 0
        self._unfit: list[str] = []
        self.boxes = read_rows(tables.boxes, BOX, wanted=self._is_large)
        self._points = read_rows(tables.landmarks, POINTS, wanted=lambda name, _: name in self.boxes)

    def take(self, names: Collection[str], count: int, split: str) -> list[Photo]:
        """Return the first `count` usable faces among `names`, by the hash of their names.

        Raises InputError if there are fewer, or if more than half have impossible landmarks.
        """
        photos: list[Photo] = []
        for name in sorted(names, key=hash_to_fraction):
            if len(photos) == count:
                break
            photo = self._read_photo(name)
            photos += [photo] if photo else []
        self._taken += len(photos)
        if len(self._unfit) > self._taken:
            raise InputError(
                f"{self._tables.landmarks}: {self._unfit[0]}, and so for {len(self._unfit):,} of "
                f"{self._taken + len(self._unfit):,} faces: the columns are in another order; expected are {ORDER}"
            )
        if len(photos) < count:
            raise InputError(
                f"{self._folder / self._tables.split} has {len(photos):,} faces of {self._size} pixels or more for "
                f"{split}, {count:,} were asked for: reduce the number, or give a smaller size"
            )
        return photos

    def describe_selection(self) -> str:
        """Return the note of this selection: how many faces were taken, left out and grey; empty if all were taken."""
        counts = {
            f"with less than {self._size} pixels left out": self._small,
            "with landmarks that are no upright face's left out": len(self._unfit),
            "grey": self._grey,
        }
        parts = [f"{count:,} {what}" for what, count in counts.items() if count]
        if self._taken < self._all:
            parts.insert(0, f"{self._taken:,} of {self._all:,} by the hash of their names")
        return f"{self._tables.split} faces: {', '.join(parts)}" if parts else ""

    def _is_large(self, name: str, box: Sequence[float]) -> bool:
        self._all += 1
        self.people.add(_parse_person(name))
        large = round(EXTENDED * max(box[2:])) >= self._size
        self._small += not large
        return large

    def _read_photo(self, name: str) -> Photo | None:
        """Return the face, or None if it is too small or its landmarks are impossible."""
        file = f"{self._tables.split}/{name}.jpg"
        points = self._points.get(name)
        if points is None:
            raise InputError(
                f"{self._folder / file} has no row {name} in {self._tables.landmarks}: copy the table again"
            )
        disorder = find_disorder(points)
        if disorder:  # a few faces lie on their side; checked before opening the image, since it may apply to all
            self._unfit.append(f"{name} has {disorder}")
            return None
        width, height, grey = read_image_header(self._folder / file)
        crop = crop_square(self.boxes[name], width, height)
        if crop[2] - crop[0] < self._size:
            self._small += 1
            return None
        if not lie_inside(points, crop):
            self._unfit.append(f"{name} has a landmark outside the square about its box")
            return None
        self._grey += grey
        return Photo(file, crop, points)


def crop_square(box: Sequence[float], width: int, height: int) -> Crop:
    """Return the square around a face's box (x, y, width, height), moved into the image and shrunk where needed."""
    side = min(round(EXTENDED * max(box[2:])), width, height)
    left, top = (
        min(max(round(start + length / 2 - side / 2), 0), limit - side)
        for start, length, limit in zip(box[:2], box[2:], (width, height), strict=True)
    )
    return left, top, left + side, top + side


def _parse_person(name: str) -> str:
    return name.partition("/")[0]

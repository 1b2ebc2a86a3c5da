"""VGGFace2: photographs of the faces of 9,131 people, with a box and five landmarks each, in the authors' own files.

Nothing is downloaded: the authors no longer give it out. Most of its faces are too small for super-resolution, so that
a study takes a part of the others: the same one on every machine. Left out: who the people are.
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
    read_image_header,
    stat_file,
)
from trainables.data.arrays.landmarks import BOX, ORDER, POINTS, Crop, find_disorder, lie_inside, read_rows

BOXES, LANDMARKS = "loose_bb_{}.csv", "loose_landmark_{}.csv"
TABLES = ("bb_landmark", "meta/bb_landmark")
"""Where they lie: copies in circulation have the first or the second."""

EXTENDED = 1.3
"""The side of the square that is cut out, by the longer side of the face's box. Source: Cao et al. 2018, whose boxes
are extended by a factor of 0.3 to have the whole head in them."""

HELD_OUT = 0.05
"""The share of people of the train folder whose faces are validation's alone."""

SMALLEST = 32


@dataclass(frozen=True)
class VGGFace2:
    """The dataset from `root`: the folder VGGFace2, or the one that it lies in; faces of `size` pixels a side.

    So many faces a split, the first ones by the hash of their names. Those of validation show other people than those
    of training, as those of test do. No face is enlarged: smaller ones are left out, and the set's note counts them.
    Raises InputError for an empty split and fewer than 32 pixels.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = 256
    train: int = 20_000
    val: int = 500
    test: int = 1_000

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.size < SMALLEST:
            raise InputError(f"{self}: allowed are 1 face or more a split, {SMALLEST} pixels or more")
        if self.root is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "root", Path(self.root).expanduser().resolve())

    @property
    def name(self) -> str:
        return "VGGFace2"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test

    def load(self) -> SrSet:
        """Choose and decode the faces, if that was never done: all 3.3 million rows are read for it.

        Raises InputError for a folder or table that is missing, a malformed row, landmarks in another order, a chosen
        face without landmarks or whose image cannot be read, and fewer faces than were asked for.
        """
        # published figures do not say on which of its faces they are: never complete
        return read_dataset(self._located(), self.name, self.size, self.sizes, HELD_OUT, complete=False)

    def _located(self) -> Path:
        remedy = "place the authors' archives there by hand and give their folder with --data-dir"
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; {remedy}")
        candidates = [Path(self.root), Path(self.root) / "VGGFace2"]
        for folder in candidates:
            if (folder / "train").is_dir() and (folder / "test").is_dir():
                return folder
        raise InputError(f"{self.name} (train/, test/) is not in any of {', '.join(map(str, candidates))}; {remedy}")


class _Tables(NamedTuple):
    """The tables of the train or of the test folder."""

    split: str
    boxes: Path
    landmarks: Path


def read_dataset(
    folder: Path, name: str, size: int, sizes: tuple[int, int, int], held_out: float, complete: bool
) -> SrSet:
    """The dataset in `folder`, laid out as VGGFace2: so many faces a split, a share of the people held out.

    Raises InputError as `VGGFace2.load` does.
    """
    tables = [_find_tables(folder, split) for split in ("train", "test")]
    listed = [stat_file(folder, str(path.relative_to(folder))) for _, *paths in tables for path in paths]
    key = [sizes, held_out, *(list(file) for file in listed)]
    return load_sr_faces(
        name, folder, key, size, lambda: _select_faces(folder, tables, size, sizes, held_out), complete
    )


def _find_tables(folder: Path, split: str) -> _Tables:
    found = []
    for table in (BOXES, LANDMARKS):
        candidates = [folder / place / table.format(split) for place in TABLES]
        paths = [path for path in candidates if path.is_file()]
        if not paths:
            raise InputError(f"neither {candidates[0]} nor {candidates[1]} is there: add the archive bb_landmark")
        found.append(paths[0])
    return _Tables(split, *found)


def _select_faces(
    folder: Path, tables: Sequence[_Tables], size: int, sizes: tuple[int, int, int], held_out: float
) -> Selection:
    pool, test = (_FacePool(folder, each, size) for each in tables)
    ranked = sorted(pool.people, key=hash_to_fraction)
    held = set(ranked[: max(1, round(held_out * len(ranked)))])
    apart = {kept: [name for name in pool.boxes if (_parse_person(name) in held) is kept] for kept in (False, True)}
    splits = (
        pool.first(apart[False], sizes[0], "train"),
        pool.first(apart[True], sizes[1], "val"),
        test.first(test.boxes, sizes[2], "test"),
    )
    return Selection(splits, "; ".join(note for note in (pool.note(), test.note()) if note))


class _FacePool:
    """The faces of one folder that are large enough by their boxes, of which some are taken."""

    def __init__(self, folder: Path, tables: _Tables, size: int):
        self.people: set[str] = set()
        self._folder, self._tables, self._size = folder, tables, size
        self._all = self._small = self._taken = self._grey = 0
        self._unfit: list[str] = []
        self.boxes = read_rows(tables.boxes, BOX, wanted=self._is_large)
        self._points = read_rows(tables.landmarks, POINTS, wanted=lambda name, _: name in self.boxes)

    def take(self, names: Collection[str], count: int, split: str) -> list[Photo]:
        """The first `count` of these faces, by the hash of their names, that can be taken."""
        photos: list[Photo] = []
        for name in sorted(names, key=hash_to_fraction):
            if len(photos) == count:
                break
            photo = self._read_photo(name)
            photos += [photo] if photo else []
        self._taken += len(photos)
        if len(self._unfit) > self._taken:
            raise InputError(
                f"{self._tables.landmarks}: {self._unfit[0]}, and of {self._taken + len(self._unfit):,} faces "
                f"{len(self._unfit):,} are like it: the columns are in another order; expected are {ORDER}"
            )
        if len(photos) < count:
            raise InputError(
                f"{self._folder / self._tables.split} has {len(photos):,} faces of {self._size} pixels or more for "
                f"{split}, {count:,} were asked for: ask for no more than there are, or give a smaller size"
            )
        return photos

    def describe_selection(self) -> str:
        """How many of the faces were taken, and what is particular about these and the others."""
        particular = {
            f"with less than {self._size} pixels left out": self._small,
            "with landmarks that are no upright face's left out": len(self._unfit),
            "grey": self._grey,
        }
        parts = [f"{count:,} {what}" for what, count in particular.items() if count]
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
        """The face, unless it cannot be taken."""
        file = f"{self._tables.split}/{name}.jpg"
        points = self._points.get(name)
        if points is None:
            raise InputError(
                f"{self._folder / file} has no row {name} in {self._tables.landmarks}: copy the table anew"
            )
        wrong = find_disorder(points)
        if wrong:  # a few faces lie on their side; it is told before an image is looked at, since it may be all
            self._unfit.append(f"{name} has {wrong}")
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
    """What is cut out about a face's box, x, y, width and height: moved into the image, made smaller if it must be."""
    side = min(round(EXTENDED * max(box[2:])), width, height)
    left, top = (
        min(max(round(start + length / 2 - side / 2), 0), whole - side)
        for start, length, whole in zip(box[:2], box[2:], (width, height), strict=True)
    )
    return left, top, left + side, top + side


def _parse_person(name: str) -> str:
    return name.partition("/")[0]

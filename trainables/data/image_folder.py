"""Any folder of square photographs of faces, such as the images of CelebA-HQ and FFHQ.

Which split an image is in follows from its name alone. Boxes of face components follow from a table of landmarks, if
there is one. Left out: finding faces in photographs, and whom these show: a person may be in more than one split.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from trainables.data.arrays.landmarks import ORDER, POINTS, find_disorder, lie_inside, read_rows

LANDMARKS = "landmarks.csv"
"""Beside the images: a row for each, its name below the folder without the suffix, and five points in its pixels."""

INNER = ("CelebA-HQ-img", "images1024x1024")
"""Where the images lie in the archives of CelebAMask-HQ and FFHQ, which also have other pictures."""

SUFFIXES = (".jpg", ".jpeg", ".png")
SMALLEST = 32


@dataclass(frozen=True)
class ImageFolder:
    """Images below `root`, squares of `size` pixels or more, reduced to `size`.

    Raises InputError for fewer than 32 pixels, and shares of validation and test that leave a split without any.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = 256
    val: float = 0.05
    """The share held out for validation."""
    test: float = 0.1

    def __post_init__(self) -> None:
        if not (self.val > 0 and self.test > 0 and self.val + self.test < 1 and self.size >= SMALLEST):
            raise InputError(
                f"{self}: allowed are {SMALLEST} pixels or more, and shares val and test above 0 and together below 1"
            )
        if self.root is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "root", Path(self.root).expanduser().resolve())

    @property
    def name(self) -> str:
        return "image folder"

    def load(self) -> SrSet:
        """Look at all images, and decode them if that was never done.

        Raises InputError for a folder that is missing or has too few images, an image that is not square, too small,
        not in three colours or grey, or without landmarks where others have some, and landmarks in another order.
        """
        root = self._located()
        files = sorted(_list_images(root))
        if not files:
            raise InputError(f"{root} has no {', '.join(SUFFIXES)}: give the folder of the images with --data-dir")
        table = [LANDMARKS] if (root / LANDMARKS).is_file() else []
        key = [self.val, self.test, *(list(stat_file(root, file)) for file in (*files, *table))]
        name = f"folder {root.name}"
        return load_sr_faces(
            name, root, key, self.size, lambda: self._select_images(root, files, bool(table)), complete=False
        )

    def _located(self) -> Path:
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; give the folder of the images with --data-dir")
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"{self.name}: {root} is no folder; give the folder of the images with --data-dir")
        return next((root / inner for inner in INNER if (root / inner).is_dir()), root)

    def _select_images(self, root: Path, files: Sequence[str], with_landmarks: bool) -> Selection:
        points = read_rows(root / LANDMARKS, POINTS) if with_landmarks else None
        splits: tuple[list[Photo], ...] = ([], [], [])
        greys = 0
        for file in files:
            photo, grey = _read_photo(root, file, self.size, points)
            splits[self._assign_split(_strip_suffix(file))].append(photo)
            greys += grey
        if not all(splits):
            found = ", ".join(
                f"{len(split)} {name}" for split, name in zip(splits, ("train", "val", "test"), strict=True)
            )
            raise InputError(
                f"{root} has {found} images: a study needs some of each; add images, or give larger shares"
            )
        note = "splits by the hash of names" + (f", {greys:,} grey images" if greys else "")
        return Selection((splits[0], splits[1], splits[2]), note)

    def _assign_split(self, name: str) -> int:
        """Of an image: 0 train, 1 val, 2 test. What is added to a folder moves no other image."""
        share = hash_to_fraction(name)
        return 2 if share < self.test else int(share < self.test + self.val)


def _list_images(root: Path) -> Iterator[str]:
    """All images below the folder, but for the shadow files that some systems leave."""
    for folder, _, names in os.walk(root, onerror=_raise_unreadable):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _raise_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions, or remove it")


def _strip_suffix(file: str) -> str:
    return os.path.splitext(file)[0]  # noqa: PTH122 - a Path for each of many files takes longer


def _read_photo(root: Path, file: str, size: int, points: Mapping[str, Sequence[float]] | None) -> tuple[Photo, bool]:
    """An image and whether it is grey."""
    path = root / file
    width, height, grey = read_image_header(path)
    if width != height or width < size:
        raise InputError(
            f"{path} has {width} × {height} pixels; allowed are squares of {size} pixels or more: "
            "cut it out, remove it, or give a smaller size"
        )
    whole = (0, 0, width, height)
    if points is None:
        return Photo(file, whole, None), grey
    if _strip_suffix(file) not in points:
        raise InputError(f"{path} has no row {_strip_suffix(file)} in {root / LANDMARKS}: add it, or remove the image")
    five = points[_strip_suffix(file)]
    wrong = find_disorder(five) or ("" if lie_inside(five, whole) else "a landmark outside its image")
    if wrong:
        raise InputError(
            f"{root / LANDMARKS}: {_strip_suffix(file)} has {wrong}: if others have too, the columns are in another order; "
            f"expected are {ORDER}"
        )
    return Photo(file, whole, five), grey

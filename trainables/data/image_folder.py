"""Any folder of square photographs of faces, such as the images of CelebA-HQ and FFHQ.

An image's split follows from its name alone. Boxes of face components are computed from a table of landmarks, if there
is one. Not included: face detection and identities; a person may appear in more than one split.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
)
from trainables.data.arrays.landmarks import ORDER, POINTS, find_disorder, lie_inside, read_rows
from trainables.data.arrays.source_files import read_image_header, stat_file
from trainables.data.folders import make_root_absolute

LANDMARKS = "landmarks.csv"
"""A file in the folder with a row for each image: its path below the folder without suffix, five points in pixels."""

INNER = ("CelebA-HQ-img", "images1024x1024")
"""Folders of the photographs in the archives of CelebAMask-HQ and FFHQ, which contain other images too."""

SUFFIXES = (".jpg", ".jpeg", ".png")
ALLOWED = ", ".join(SUFFIXES)
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpe", ".tif", ".tiff", ".webp")
"""Images that are not read; the note of the loaded set counts them."""

THUMBNAILS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
"""Folders in which systems keep small copies and deleted files; like files and folders that begin with a dot."""

SMALLEST = 32
"""Least side of an image in pixels."""


@dataclass(frozen=True)
class ImageFolder:
    """Images below `root`, squares of at least `size` pixels, resized to `size`.

    Raises InputError for fewer than 32 pixels, and for shares `val` and `test` that leave a split empty.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = 256
    val: float = 0.05
    """The share of images for validation."""
    test: float = 0.1
    """The share of images for test."""

    def __post_init__(self) -> None:
        if not (self.val > 0 and self.test > 0 and self.val + self.test < 1 and self.size >= SMALLEST):
            raise InputError(
                f"{self}: allowed are {SMALLEST} pixels or more, and shares val and test above 0 and together below 1"
            )
        make_root_absolute(self)

    @property
    def name(self) -> str:
        return "image folder"

    def load(self) -> SrSet:
        """List all images, and decode them on first use.

        Raises InputError for a folder that is missing or has too few images, an image that is not square, too small,
        without one colour for each pixel, or missing from the table of landmarks, and landmarks in another order.
        """
        root = self._find_images_folder()
        listing = _Listing(root)
        files = listing.files
        if not files:
            left_out = listing.describe_left_out()
            raise InputError(f"{root} has no {ALLOWED}{left_out}: give the folder of the images with --data-dir")
        table = [LANDMARKS] if (root / LANDMARKS).is_file() else []
        key = [self.val, self.test, *(list(stat_file(root, file)) for file in (*files, *table))]
        left_out = listing.describe_left_out()
        key += [left_out] if left_out else []
        name = f"folder {root.name}"
        return load_sr_faces(
            name, root, key, self.size, lambda: self._select_images(root, listing, bool(table)), complete=False
        )

    def _find_images_folder(self) -> Path:
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; give the folder of the images with --data-dir")
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"{self.name}: {root} is not a folder; give the folder of the images with --data-dir")
        return next((root / inner for inner in INNER if (root / inner).is_dir()), root)

    def _select_images(self, root: Path, listing: _Listing, with_landmarks: bool) -> Selection:
        points = read_rows(root / LANDMARKS, POINTS) if with_landmarks else None
        splits: tuple[list[Photo], ...] = ([], [], [])
        greys, problems = 0, list[str]()
        for file in listing.files:
            try:
                photo, grey = _read_photo(root, file, self.size, points)
            except InputError as error:
                problems.append(str(error))
                continue
            splits[self._assign_split(_strip_suffix(file))].append(photo)
            greys += grey
        if problems:
            more = f"; so are {len(problems) - 1:,} more images" if len(problems) > 1 else ""
            raise InputError(f"{problems[0]}{more}")
        if not all(splits):
            found = ", ".join(
                f"{len(split)} {name}" for split, name in zip(splits, ("train", "val", "test"), strict=True)
            )
            raise InputError(
                f"{root} has {found} images: every split needs at least one; add images, or give larger shares"
            )
        note = "splits by the hash of names" + (f", {greys:,} grey images" if greys else "")
        note += listing.describe_left_out()
        return Selection((splits[0], splits[1], splits[2]), note)

    def _assign_split(self, name: str) -> int:
        """Return an image's split, 0 train, 1 val, 2 test, which stays the same when images are added."""
        share = hash_to_fraction(name)
        return 2 if share < self.test else int(share < self.test + self.val)


class _Listing:
    """The images below a folder, also behind links to folders, and counts of files that were left out."""

    def __init__(self, root: Path):
        self.files: list[str] = []
        self._root, self._seen = root, set[tuple[int, int]]()
        self._hidden = self._other = 0
        folders = [str(root)]
        while folders:  # folders first, then what links lead to: an image has one name, the one without a link
            folders = sorted(link for folder in folders for link in self._add_folder(folder))
        self.files.sort()

    def describe_left_out(self) -> str:
        """Return how many images were left out and why; empty if none were."""
        counts = {"hidden files and thumbnails": self._hidden, f"images of other types than {ALLOWED}": self._other}
        return "".join(f", {count:,} {what} left out" for what, count in counts.items() if count)

    def _add_folder(self, top: str) -> list[str]:
        """List the images of a folder and those in it; return links to further folders."""
        links: list[str] = []
        for folder, inner, names in os.walk(top, onerror=_raise_unreadable):
            status = os.stat(folder)  # noqa: PTH116 - a Path for each of many folders takes longer
            is_new = (status.st_dev, status.st_ino) not in self._seen
            self._seen.add((status.st_dev, status.st_ino))
            paths = [os.path.join(folder, name) for name in inner]  # noqa: PTH118
            links += [path for path in paths if os.path.islink(path)]  # noqa: PTH114
            inner[:] = inner if is_new else []
            for name in names if is_new else ():
                self._add_file(folder, name)
        return links

    def _add_file(self, folder: str, name: str) -> None:
        path = Path(folder, name).relative_to(self._root)
        suffix = path.suffix.lower()
        if any(part.startswith(".") or part in THUMBNAILS for part in path.parts):
            self._hidden += suffix in SUFFIXES
        elif suffix in SUFFIXES:
            self.files.append(path.as_posix())
        else:
            self._other += suffix in OTHER_SUFFIXES


def _raise_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions, or remove it")


def _strip_suffix(file: str) -> str:
    return os.path.splitext(file)[0]  # noqa: PTH122 - a Path for each of many files takes longer


def _read_photo(root: Path, file: str, size: int, points: Mapping[str, Sequence[float]] | None) -> tuple[Photo, bool]:
    """Return an image, and True if it is grey."""
    path = root / file
    width, height, grey = read_image_header(path)
    if width != height or width < size:
        raise InputError(
            f"{path} has {width} × {height} pixels; allowed are squares of {size} pixels or more: "
            "cut it out, remove it, or give a smaller size"
        )
    whole = 0, 0, width, height
    if points is None:
        return Photo(file, whole, None), grey
    name = _strip_suffix(file)
    if name not in points:
        raise InputError(f"{path} has no row {name} in {root / LANDMARKS}: add it, or remove the image")
    disorder = find_disorder(points[name])
    if not disorder and not lie_inside(points[name], whole):
        disorder = "a landmark outside its image"
    if disorder:
        raise InputError(
            f"{root / LANDMARKS}: {name} has {disorder}: if others have too, the columns are in another order; "
            f"expected are {ORDER}"
        )
    return Photo(file, whole, points[name]), grey

"""Any folder of square photographs of faces, such as the images of CelebA-HQ and FFHQ.

An image's split follows from its name alone, or from the first name of those with equal pixels. Boxes of face
components are computed from a table of landmarks, if there is one. Not included: face detection and identities; a
person may appear in more than one split.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.duplicates import hash_content
from trainables.data.arrays.face_sr import (
    Photo,
    Selection,
    SrSet,
    hash_to_fraction,
    load_sr_faces,
)
from trainables.data.arrays.landmarks import ORDER, POINTS, find_disorder, lie_inside, read_rows
from trainables.data.files.image_listing import ALLOWED, ImageListing
from trainables.data.files.source_files import open_image, read_image_header, stat_file
from trainables.data.folders import make_root_absolute

LANDMARKS = "landmarks.csv"
"""A file in the folder with a row for each image: its path below the folder without suffix, five points in pixels."""

INNER = ("CelebA-HQ-img", "images1024x1024")
"""Folders of the photographs in the archives of CelebAMask-HQ and FFHQ, which contain other images too."""

_SPLITTING = "by the first name of equal images"
"""Part of the cache key: change it with the splits."""

SMALLEST = 32
"""Least side of an image in pixels."""


@dataclass(frozen=True)
class PhotoFolder:
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
        return "photo folder"

    def load(self) -> SrSet:
        """List all images, and decode them on first use.

        Raises InputError for a folder that is missing or has too few images, an image that is not square, too small,
        without one colour for each pixel, or missing from the table of landmarks, and landmarks in another order.
        """
        root = self._find_images_folder()
        listing = ImageListing(root)
        files, left_out = listing.files, listing.describe_left_out()
        if not files:
            raise InputError(f"{root} has no {ALLOWED}{left_out}: give the folder of the images with --data-dir")
        table = [LANDMARKS] if (root / LANDMARKS).is_file() else []
        key = [_SPLITTING, self.val, self.test, *(list(stat_file(root, file)) for file in (*files, *table))]
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

    def _select_images(self, root: Path, listing: ImageListing, with_landmarks: bool) -> Selection:
        rows = read_rows(root / LANDMARKS, POINTS) if with_landmarks else None
        points = {unicodedata.normalize("NFC", name): row for name, row in rows.items()} if rows is not None else None
        splits: tuple[list[Photo], ...] = ([], [], [])
        read = _read_photos(root, listing.files, self.size, points)
        greys, originals = sum(grey for _, grey in read), _find_originals(root, listing.files)
        for (photo, _), original in zip(read, originals, strict=True):
            splits[self._assign_split(_strip_suffix(original))].append(photo)
        copies = sum(file != original for file, original in zip(listing.files, originals, strict=True))
        copied = (
            f", {copies:,} exact {'copies' if copies > 1 else 'copy'} in the split of the original" if copies else ""
        )
        if not all(splits):
            found = ", ".join(
                f"{len(split)} {name}" for split, name in zip(splits, ("train", "val", "test"), strict=True)
            )
            raise InputError(
                f"{root} has {found} images{copied}: every split needs at least one; add images, or give larger shares"
            )
        note = "splits by the hash of names" + (f", {greys:,} grey images" if greys else "") + copied
        return Selection((splits[0], splits[1], splits[2]), note + listing.describe_left_out())

    def _assign_split(self, name: str) -> int:
        """Return an image's split, 0 train, 1 val, 2 test, which stays the same when images are added."""
        share = hash_to_fraction(name)
        return 2 if share < self.test else int(share < self.test + self.val)


def _find_originals(root: Path, files: Sequence[str]) -> list[str]:
    """Return for each image the first one with the same pixels, which is the image itself if there is no other."""

    def hash_file(file: str) -> bytes:
        return hash_content(np.asarray(open_image(root / file).convert("RGB"))).tobytes()

    first: dict[bytes, str] = {}
    with ThreadPoolExecutor() as threads:  # Pillow releases the GIL while it decodes
        return [
            first.setdefault(content, file) for content, file in zip(threads.map(hash_file, files), files, strict=True)
        ]


def _strip_suffix(file: str) -> str:
    return os.path.splitext(file)[0]  # noqa: PTH122 - a Path for each of many files takes longer


def _read_photos(
    root: Path, files: Sequence[str], size: int, points: Mapping[str, Sequence[float]] | None
) -> list[tuple[Photo, bool]]:
    """Return each image, and True if it is grey. Raises InputError for those that cannot be used: one, and a count."""
    photos, problems = list[tuple[Photo, bool]](), list[str]()
    for file in files:
        try:
            photos.append(_read_photo(root, file, size, points))
        except InputError as error:
            problems.append(str(error))
    if problems:
        more = f"; {len(problems) - 1:,} more images cannot be used" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    return photos


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
    name = unicodedata.normalize("NFC", _strip_suffix(file))
    if name not in points:
        raise InputError(
            f"{path} has no row {name} (its name without suffix) in {root / LANDMARKS}: add it, or remove the image"
        )
    disorder = find_disorder(points[name])
    if not disorder and not lie_inside(points[name], whole):
        disorder = "a landmark outside its image"
    if disorder:
        raise InputError(
            f"{root / LANDMARKS}: {name} has {disorder}: if others have too, the columns are in another order; "
            f"expected are {ORDER}"
        )
    return Photo(file, whole, points[name]), grey

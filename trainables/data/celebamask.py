"""CelebAMask-HQ: 30,000 photographs of faces, each with a mask per part of the face, in the authors' own layout.

Nothing is downloaded: the authors license the dataset for non-commercial research without redistribution. The splits
are CelebA's. Not included: attributes and poses.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.face_parsing import CLASSES, Portrait, Resolution, load_faces
from trainables.data.arrays.label_maps import LabelMapSet
from trainables.data.files.source_files import SourceFile
from trainables.data.folders import find_folder, make_root_absolute

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SPLITS = ("train", "val", "test")
SIZES = (24_183, 2_993, 2_824)
FIRST_VAL, FIRST_TEST = 162_771, 182_638
"""The first CelebA numbers of the val and test splits, as the authors' code compares them with the mapping's second
column, which counts from 0 whereas CelebA counts from 1."""
MASK_SIZE = 512
"""Side of the masks in pixels."""
PER_FOLDER = 2_000
"""Images whose masks share one folder."""
SMALLEST = 32
"""Least side of an image in pixels."""


@dataclass(frozen=True)
class CelebAMaskHQ:
    """The dataset from `root`, the folder CelebAMask-HQ or its parent, resized to squares of `size` pixels.

    Some images may be missing; the note of the loaded set then gives their number. Each image needs at least one mask,
    each split at least one image.
    Raises InputError for a size outside 32 to 512, the size of the masks.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = MASK_SIZE

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= MASK_SIZE:
            raise InputError(f"CelebAMask-HQ at {self.size} pixels; allowed is {SMALLEST} to {MASK_SIZE}")
        make_root_absolute(self)

    @property
    def name(self) -> str:
        return "CelebAMask-HQ"

    def load(self) -> LabelMapSet:
        """List all files, and decode them on first use: 25 minutes on one core for the full dataset.

        Raises InputError for a folder that is missing, an image without a row in the mapping or without a mask, a mask
        of an unknown part, and a file that cannot be read or has another size.
        """
        folder = find_folder(self.name, self.root, ["CelebAMask-HQ"], [IMAGES], "CelebAMask-HQ archive")
        return read_dataset(folder, self.name, SIZES, Resolution(self.size, MASK_SIZE))


def read_dataset(folder: Path, name: str, sizes: tuple[int, int, int], resolution: Resolution) -> LabelMapSet:
    """Read a dataset in the layout of CelebAMask-HQ, with `sizes` images in its complete train, val and test splits.

    Raises InputError as `CelebAMaskHQ.load` does.
    """
    images = _find_images(folder / IMAGES)
    splits = _assign_splits(folder / MAPPING, images)
    found = (len(splits[0]), len(splits[1]), len(splits[2]))
    _check_sizes(folder, found, sizes)
    masks = _find_masks(folder / MASKS, images)
    portraits = [[Portrait(images[number], masks[number]) for number in split] for split in splits]
    faces, fingerprint = load_faces(name, portraits, resolution)
    notes = [
        f"{count:,} of {full:,} {split} images"
        for split, count, full in zip(SPLITS, found, sizes, strict=True)
        if count != full
    ]
    return LabelMapSet(name, faces, found, fingerprint, "; ".join(notes), complete=not notes)


def _find_images(folder: Path) -> dict[int, SourceFile]:
    found: dict[int, SourceFile] = {}
    for file in _list_files(folder):
        if match := re.fullmatch(r"(0|[1-9]\d*)\.jpe?g", file.name, re.IGNORECASE):
            other = found.setdefault(int(match[1]), file)
            if other != file:
                raise InputError(f"{other.path} and {file.name} have the same number: remove one of them")
    if not found:
        raise InputError(f"{folder} has no <number>.jpg: unpack the archive again")
    return found


def _assign_splits(path: Path, images: Mapping[int, SourceFile]) -> tuple[list[int], ...]:
    """Return the image numbers of each split, ascending, by the position of their originals in CelebA."""
    originals = _read_mapping(path)
    splits: tuple[list[int], ...] = ([], [], [])
    for number in sorted(images):
        if number not in originals:
            raise InputError(f"{images[number].path} has no row in {path}: copy the mapping again, or remove the image")
        original = originals[number]
        splits[(original >= FIRST_VAL) + (original >= FIRST_TEST)].append(number)
    return splits


_ROWS = "expected is a header `idx orig_idx orig_file` and rows such as `0 119613 119614.jpg`"


def _read_mapping(path: Path) -> dict[int, int]:
    """Return the CelebA number, from 0, of each image's original."""
    try:
        header, *rows = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): unpack the archive again") from None
    if header.split()[:2] != ["idx", "orig_idx"]:
        raise InputError(f"{path} begins with {header[:60]!r}; {_ROWS}: copy it again from the archive")
    originals: dict[int, int] = {}
    for line, row in enumerate(rows, start=2):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+\S+\s*", row, re.ASCII)
        if match and int(match[1]) not in originals:
            originals[int(match[1])] = int(match[2])
        elif row.strip():
            what = "a second row for its image" if match else "malformed"
            raise InputError(f"{path}: line {line}, {row[:60]!r}, is {what}; {_ROWS}: copy it again from the archive")
    return originals


def _check_sizes(folder: Path, found: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    parts = [
        ", ".join(f"{count:,} {split}" for split, count in zip(SPLITS, counts, strict=True))
        for counts in (found, sizes)
    ]
    if any(count > full for count, full in zip(found, sizes, strict=True)):
        raise InputError(f"{folder} has {parts[0]} images by {MAPPING}, the dataset {parts[1]}: copy it again")
    if 0 in found:
        raise InputError(f"{folder} has {parts[0]} images: every split needs at least one; copy more from the archive")


def _find_masks(folder: Path, images: Mapping[int, SourceFile]) -> dict[int, tuple[tuple[int, SourceFile], ...]]:
    """Return the masks of each image by ascending class; masks without their image are ignored."""
    found: dict[int, dict[int, SourceFile]] = defaultdict(dict)
    for part in sorted({number // PER_FOLDER for number in images}):
        for number, label, file in _list_masks(folder / str(part)):
            found[number][label] = file
    for number in sorted(images.keys() - found.keys()):
        raise InputError(
            f"{images[number].path} has no mask in {folder / str(number // PER_FOLDER)}: add its masks, or remove it"
        )
    return {number: tuple(sorted(found[number].items())) for number in images}


def _list_masks(folder: Path) -> Iterable[tuple[int, int, SourceFile]]:
    """Yield image number, class and file of each mask in one of the folders 0, 1, …"""
    for file in _list_files(folder):
        match = re.fullmatch(r"(\d{5,})_(\w+)\.(?i:png)", file.name, re.ASCII)
        if match is None:
            continue
        number, part = int(match[1]), match[2]
        if part not in CLASSES[1:]:
            raise InputError(
                f"{file.path} is a mask of {part!r}; allowed are {', '.join(CLASSES[1:])}: remove or rename it"
            )
        if str(number // PER_FOLDER) != folder.name:
            raise InputError(f"{file.path} belongs in folder {number // PER_FOLDER}: move it there")
        yield number, CLASSES.index(part), file


def _list_files(folder: Path) -> list[SourceFile]:
    try:
        with os.scandir(folder) as entries:  # in one pass and without a Path for each: there are 400,000
            return [SourceFile(e.path, (stat := e.stat()).st_size, stat.st_mtime_ns) for e in entries]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): unpack the archive again") from None

"""CelebAMask-HQ: 30,000 photographs of faces and a mask for each part of each, in the authors' own files and folders.

Nothing is downloaded: the authors give the dataset for non-commercial research, and nobody may pass it on. The splits
are those of CelebA. Left out: attributes and poses.
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
from trainables.data.arrays.face_decoding import CLASSES, Portrait, Resolution, SourceFile
from trainables.data.arrays.face_parsing import FaceSet, load_faces

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SPLITS = ("train", "val", "test")
SIZES = (24_183, 2_993, 2_824)
FIRST_VAL, FIRST_TEST = 162_771, 182_638
"""The first numbers in CelebA of its val and test images, as the authors' code compares them with the second column
of the mapping, which counts from 0 where CelebA counts from 1."""
MASK_SIZE = 512
PER_FOLDER = 2_000
SMALLEST = 32


@dataclass(frozen=True)
class CelebAMaskHQ:
    """The dataset from `root`: the folder CelebAMask-HQ, or the one that it lies in; reduced to `size` pixels a side.

    Images may be missing: the set's note then says how many there are. Each must have a mask at least, and no split
    may be empty.
    Raises InputError for a size that is not between 32 and that of the masks, 512.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    size: int = MASK_SIZE

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= MASK_SIZE:
            raise InputError(f"CelebAMask-HQ at {self.size} pixels; allowed is {SMALLEST} to {MASK_SIZE}")
        if self.root is not None:  # absolute: a worker does not run in the folder the command was given in
            object.__setattr__(self, "root", Path(self.root).expanduser().resolve())

    @property
    def name(self) -> str:
        return "CelebAMask-HQ"

    def load(self) -> FaceSet:
        """Look at all names, and decode the files if that was never done: the whole set takes one core 25 minutes.

        Raises InputError for a folder that is missing, an image without a row in the mapping or without a mask, a mask
        of an unknown part, and a file that cannot be read or has another size.
        """
        return read_dataset(self._located(), self.name, SIZES, Resolution(self.size, MASK_SIZE))

    def _located(self) -> Path:
        remedy = "place the authors' CelebAMask-HQ archive there by hand and give its folder with --data-dir"
        if self.root is None:
            raise InputError(f"{self.name}: no data folder given; {remedy}")
        candidates = [Path(self.root), Path(self.root) / "CelebAMask-HQ"]
        for folder in candidates:
            if (folder / IMAGES).is_dir():
                return folder
        raise InputError(f"{self.name} ({IMAGES}/) is not in any of {', '.join(map(str, candidates))}; {remedy}")


def read_dataset(folder: Path, name: str, sizes: tuple[int, int, int], resolution: Resolution) -> FaceSet:
    """The dataset in `folder`, laid out as CelebAMask-HQ, whose full splits have so many images.

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
    return FaceSet(name, faces, found, fingerprint, "; ".join(notes), complete=not notes)


def _find_images(folder: Path) -> dict[int, SourceFile]:
    found = {
        int(match[1]): file for file in _list_files(folder) if (match := re.fullmatch(r"(0|[1-9]\d*)\.jpg", file.name))
    }
    if not found:
        raise InputError(f"{folder} has no <number>.jpg: unpack the archive again")
    return found


def _assign_splits(path: Path, images: Mapping[int, SourceFile]) -> tuple[list[int], ...]:
    """The numbers of the images of each split, ascending, by where their originals are in CelebA."""
    originals = _read_mapping(path)
    splits: tuple[list[int], ...] = ([], [], [])
    for number in sorted(images):
        if number not in originals:
            raise InputError(f"{images[number].path} has no row in {path}: copy the mapping anew, or remove the image")
        original = originals[number]
        splits[(original >= FIRST_VAL) + (original >= FIRST_TEST)].append(number)
    return splits


_ROWS = "expected is a line `idx orig_idx orig_file`, and below it rows such as `0 119613 119614.jpg`"


def _read_mapping(path: Path) -> dict[int, int]:
    """By an image's number, that of its original in CelebA, from 0."""
    try:
        header, *rows = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): unpack the archive again") from None
    if header.split()[:2] != ["idx", "orig_idx"]:
        raise InputError(f"{path} begins with {header[:60]!r}; {_ROWS}: copy it anew from the archive")
    originals: dict[int, int] = {}
    for line, row in enumerate(rows, start=2):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+\S+\s*", row, re.ASCII)
        if match and int(match[1]) not in originals:
            originals[int(match[1])] = int(match[2])
        elif row.strip():
            what = "a second row of its image" if match else "no such row"
            raise InputError(f"{path}: line {line}, {row[:60]!r}, is {what}; {_ROWS}: copy it anew from the archive")
    return originals


def _check_sizes(folder: Path, found: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    parts = [
        ", ".join(f"{count:,} {split}" for split, count in zip(SPLITS, counts, strict=True))
        for counts in (found, sizes)
    ]
    if any(count > full for count, full in zip(found, sizes, strict=True)):
        raise InputError(f"{folder} has {parts[0]} images by {MAPPING}, the dataset {parts[1]}: copy it anew")
    if 0 in found:
        raise InputError(f"{folder} has {parts[0]} images: a study needs some of each; copy more from the archive")


def _find_masks(folder: Path, images: Mapping[int, SourceFile]) -> dict[int, tuple[tuple[int, SourceFile], ...]]:
    """By an image's number, its masks by class, ascending; masks of images that are not there are left out."""
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
    """The number, the class and the file of each mask in one of the folders 0, 1, …"""
    for file in _list_files(folder):
        match = re.fullmatch(r"(\d{5,})_(\w+)\.png", file.name, re.ASCII)
        if match is None:
            continue
        number, part = int(match[1]), match[2]
        if part not in CLASSES[1:]:
            raise InputError(
                f"{file.path} is a mask of {part!r}; allowed are {', '.join(CLASSES[1:])}: remove or rename it"
            )
        if str(number // PER_FOLDER) != folder.name:
            raise InputError(f"{file.path} belongs into folder {number // PER_FOLDER}: move it there")
        yield number, CLASSES.index(part), file


def _list_files(folder: Path) -> list[SourceFile]:
    try:
        with os.scandir(folder) as entries:  # in one pass, and no Path each: they are 400,000
            return [SourceFile(e.path, (about := e.stat()).st_size, about.st_mtime_ns) for e in entries]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): unpack the archive again") from None

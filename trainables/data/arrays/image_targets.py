"""Images of any size with numbers or points: resized and decoded once to one array, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.decoding import Decoding, measure_pixels
from trainables.data.arrays.duplicates import ImageHashes, hash_images, load_hashes
from trainables.data.arrays.labelled_images import PHOTOGRAPH, SPLITS, Shares, check_split_sizes, hash_files
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import OrderedSplits, Pixels
from trainables.data.files.image_sources import ImageFiles
from trainables.data.files.source_files import measure_shown_image, stat_file

Targets = npt.NDArray[np.float32]

_METHOD = 3
"""Part of the cache key: change it with the splits, the resizing, the order, the targets or their metadata."""

_IMAGES, _TARGETS, _ABOUT = "images.npy", "targets.npy", "about.json"


@dataclass(frozen=True)
class TargetTable:
    """The names of the numbers, or of the points, that are known of each image.

    Raises InputError for no name, a name twice, and exchanged points that are none of them.
    """

    names: tuple[str, ...]
    are_points: bool = False
    exchanged: tuple[tuple[str, str], ...] = ()
    """Pairs of points that trade places in the mirror image, such as ("left eye", "right eye")."""

    def __post_init__(self) -> None:
        kind, example = ("points", "nose") if self.are_points else ("numbers", "age")
        if isinstance(self.names, str) or not self.names:
            raise InputError(f'{kind} is {self.names!r}; write their names, such as {kind}=("{example}",)')
        if twice := [name for number, name in enumerate(self.names) if name in self.names[:number]]:
            raise InputError(f"{kind} has {twice[0]!r} twice; write it once")
        if unknown := [name for pair in self.exchanged for name in pair if name not in self.names]:
            raise InputError(f"there is no point {unknown[0]!r}; there are {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The name of each of the M outputs of a net: the numbers, or x and y of each point."""
        if not self.are_points:
            return self.names
        return tuple(f"{name}_{axis}" for name in self.names for axis in ("x", "y"))

    def mirror(self) -> list[int]:
        """Return for each point the one that takes its place in the mirror image."""
        order = list(range(len(self)))
        for pair in self.exchanged:
            one, other = (self.names.index(name) for name in pair)
            order[one], order[other] = other, one
        return order


class TargetFile(NamedTuple):
    """An image file with what is known of it."""

    file: str
    """Path below the data set's folder."""
    values: tuple[float, ...]
    """(M,): numbers, or x and y in pixels of the file's image, 0 the middle of the first pixel."""
    split: str
    """One of SPLITS, or "" if the file's content decides."""
    where: str
    """The place of the values, for messages."""


@dataclass(frozen=True, eq=False)
class TargetImages:
    """Images with their targets, in memory or memory-mapped."""

    images: Pixels
    """(N, C, S, S)."""
    targets: Targets
    """(N, M): numbers as given, or points (x, y) from −1, an image's left and upper edge, to 1."""

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int) -> TargetImages:
        return TargetImages(self.images[start:stop], self.targets[start:stop])


@dataclass(frozen=True, eq=False)
class TargetSet(OrderedSplits[TargetImages]):
    """Images with numbers or points in splits of their own."""

    offset: tuple[float, ...] = field(kw_only=True)
    """(M,): the mean of each number over the training images, 0 for points."""
    scale: tuple[float, ...] = field(kw_only=True)
    """(M,): the deviation of each number over the training images, 1 for points."""

    @cached_property
    def hashes(self) -> tuple[ImageHashes, ImageHashes]:
        """The hashes of the images of train and val, and of test."""
        images = self.samples.images
        if images.shape[-1] >= PHOTOGRAPH:
            return self.split_hashes(load_hashes(self.name, self.fingerprint, images, self.files))
        return self.split_hashes(hash_images(images, False, self.files))


def load_image_targets(
    name: str, root: Path, files: Sequence[TargetFile], table: TargetTable, shares: Shares, decoding: Decoding
) -> TargetSet:
    """Return images and targets of these files below `root`; read and decode them on first use.

    Arrays are cached, and are valid until a file's name, size, time of change, values or split change.
    Raises InputError for files that cannot be used, a split without an image, a point outside its image, a number that
    is the same for all training images, and a full disk.
    """
    key = [_METHOD, shares, decoding, table]
    key += [[*stat_file(root, one.file), one.values, one.split] for one in files]
    folder = get_cache_folder("image-targets") / digest(key)
    samples, about = load_or_make(
        folder,
        f"decoded {name}",
        load=lambda folder: _load_arrays(folder, decoding, table),
        make=lambda folder: _write_arrays(name, folder, root, files, table, shares, decoding),
    )
    train, val, test = about["sizes"]
    known = {key: tuple(about[key]) for key in ("mean", "std", "offset", "scale", "files")}
    # no paper says which of these images its figures are of
    return TargetSet(
        name, samples, (train, val, test), about["fingerprint"], **known, note=about["note"], complete=False
    )


def _load_arrays(folder: Path, decoding: Decoding, table: TargetTable) -> tuple[TargetImages, dict[str, Any]] | None:
    """Map cached arrays; None if they are absent or damaged."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        images, targets = np.load(folder / _IMAGES, mmap_mode="r"), np.load(folder / _TARGETS)
    except (OSError, ValueError, EOFError):
        return None
    count = sum(about["sizes"])
    shapes = (count, *decoding.shape), (count, len(table.outputs))
    is_whole = (images.dtype, images.shape, targets.shape) == (np.uint8, *shapes)
    return (TargetImages(images, targets), about) if is_whole else None


def _write_arrays(
    name: str,
    folder: Path,
    root: Path,
    files: Sequence[TargetFile],
    table: TargetTable,
    shares: Shares,
    decoding: Decoding,
) -> None:
    """Decode all files to one array in the order of the splits, and write targets and metadata."""
    contents = hash_files(ImageFiles(root), [one.file for one in files])
    splits = [one.split or shares.choose_split(content) for one, content in zip(files, contents, strict=True)]
    order = sorted(range(len(files)), key=lambda index: (SPLITS.index(splits[index]), files[index].file))
    sizes = [splits.count(split) for split in SPLITS]
    check_split_sizes(name, sizes, SPLITS)
    targets = _read_targets(root, [files[index] for index in order], table)
    offset, scale = _measure_targets(name, targets[: sizes[0]], table)
    hashed = hashlib.sha256(digest(sizes, table).encode())
    shape = (len(files), *decoding.shape)
    paths = [root / files[index].file for index in order]
    write_arrays(name, folder, {_IMAGES: shape}, paths, lambda path: [decoding.decode(path)], hashed)
    hashed.update(targets.data)
    np.save(folder / _TARGETS, targets)
    mean, std = measure_pixels(np.load(folder / _IMAGES, mmap_mode="r")[: sizes[0]])
    about = {"sizes": sizes, "mean": mean, "std": std, "offset": offset, "scale": scale}
    about |= {"fingerprint": hashed.hexdigest()[:16], "note": _describe_cut(targets, table)}
    about["files"] = [files[index].file for index in order]
    (folder / _ABOUT).write_text(json.dumps(about))


def _read_targets(root: Path, files: Sequence[TargetFile], table: TargetTable) -> Targets:
    """Return the targets (N, M) float32 of these files; for points their headers are read."""
    if not table.are_points:
        return np.array([one.values for one in files], dtype=np.float32)
    with ThreadPoolExecutor() as threads:
        rows = list(threads.map(lambda one: _locate_points(root, one, table), files))
    return np.array(rows, dtype=np.float32)


def _locate_points(root: Path, one: TargetFile, table: TargetTable) -> npt.NDArray[np.float64]:
    """Return an image's points (2·P,) in its largest middle square, from −1 to 1: that is what `Decoding` keeps."""
    width, height = measure_shown_image(root / one.file)
    points = np.array(one.values).reshape(-1, 2)
    sides = np.array([width, height])
    for name, (x, y) in zip(table.names, points, strict=True):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(
                f"{one.where}: {name} is ({x:g}, {y:g}), outside {one.file} of {width} × {height} pixels: correct it, "
                "or remove the row"
            )
    corner = (sides - sides.min()) / 2
    located: npt.NDArray[np.float64] = 2 * (points + 0.5 - corner) / sides.min() - 1
    return located.ravel()


def _measure_targets(name: str, targets: Targets, table: TargetTable) -> tuple[list[float], list[float]]:
    """Return the offset and scale of each output (M,), from the training targets (N, M)."""
    if table.are_points:
        return [0.0] * len(table.outputs), [1.0] * len(table.outputs)
    for number, low, high in zip(table.names, targets.min(axis=0), targets.max(axis=0), strict=True):
        if low == high:
            raise InputError(f"{name}: {number} is {low:g} for all training images; there is nothing to learn")
    wide = targets.astype(np.float64)
    return wide.mean(axis=0).tolist(), wide.std(axis=0).tolist()


def _describe_cut(targets: Targets, table: TargetTable) -> str:
    """Return how many points lie outside the middle squares of their images; empty if none do."""
    if not table.are_points:
        return ""
    outside = int((np.abs(targets.reshape(len(targets), -1, 2)) > 1).any(axis=2).sum())
    return f"{outside:,} points lie outside the middle square of their image" if outside else ""

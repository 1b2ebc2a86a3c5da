"""Images of any size with label images: resized and decoded once to two arrays, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from study.errors import InputError
from study.identity import digest
from trainables.data.arrays.cache import get_cache_folder, load_or_make
from trainables.data.arrays.label_maps import ClassTable, LabelMaps, LabelMapSet
from trainables.data.arrays.labelled_images import SPLITS, Shares, check_split_sizes, hash_files
from trainables.data.arrays.memmap import write_arrays
from trainables.data.arrays.splits import Pixels
from trainables.data.files.image_sources import ImageFiles
from trainables.data.files.source_files import check_colours, open_image, stat_file
from trainables.task import IGNORED

_METHOD = 2
"""Part of the cache key: change it with the splits, the resizing, the order or the metadata."""

_IMAGES, _LABELS, _ABOUT = "images.npy", "labels.npy", "about.json"

_VALUES = 2**16
"""Values that a label image may have: those of 16 bits."""

_UNKNOWN = -1
"""The entry of values outside the class table."""

_NAMED = 10
"""Entries of a class table that a message lists."""

_MODES = ("1", "L", "P", "I;16", "I")
"""Pillow's modes of label images: black and white, grey, palette, 16 bits as different versions call them."""


class LabelledPair(NamedTuple):
    """An image file with the file of its labels, both below the data set's folder."""

    image: str
    label: str
    split: str
    """One of SPLITS, or "" if the image's content decides."""


@dataclass(frozen=True)
class PairDecoding:
    """The form of decoded pairs: images of `height` × `width` pixels, and the class of each value of label images.

    Raises InputError for sides below 8, and for values of labels outside 0 to 65,535.
    """

    height: int
    width: int
    values: tuple[int, ...]
    """The value that stands for each class in label images."""
    ignore: int | Literal["others"] | None
    """The value of pixels without a class; "others" for all values that stand for no class."""
    table: ClassTable

    def __post_init__(self) -> None:
        if any(not isinstance(side, int) or side < 8 for side in (self.height, self.width)):
            raise InputError(f"size is {self.height} × {self.width} pixels; allowed are whole numbers, 8 or more")
        given = (*self.values, *((self.ignore,) if isinstance(self.ignore, int) else ()))
        if wrong := [value for value in given if not isinstance(value, int) or not 0 <= value < _VALUES]:
            raise InputError(f"the value {wrong[0]!r} of labels; allowed are whole numbers from 0 to {_VALUES - 1}")
        if len(set(self.values)) != len(self.values):
            raise InputError(f"classes have the values {self.values}; give each class a value of its own")
        if not (self.ignore in (None, "others") or isinstance(self.ignore, int)) or self.ignore in self.values:
            raise InputError(
                f"ignore is {self.ignore!r}; allowed are a value that stands for no class, 'others' and None"
            )

    @cached_property
    def _class_of_value(self) -> npt.NDArray[np.int16]:
        """(65536,): the class of each value of label images, IGNORED, or _UNKNOWN."""
        classes = np.full(_VALUES, IGNORED if self.ignore == "others" else _UNKNOWN, dtype=np.int16)
        classes[list(self.values)] = np.arange(len(self.values))
        if isinstance(self.ignore, int):
            classes[self.ignore] = IGNORED
        return classes

    def decode(self, root: Path, pair: LabelledPair) -> tuple[Pixels, Pixels]:
        """Return image (3, H, W) and labels (H, W): both cut alike to the largest middle part of this shape, resized.

        Images are resized by Pillow's bicubic filter, labels by the nearest pixel.
        Raises InputError for files that cannot be decoded, differ in size, or have labels outside the class table.
        """
        image, label = open_image(root / pair.image), open_image(root / pair.label)
        check_colours(image, root / pair.image)
        if image.size != label.size:
            raise InputError(
                f"{root / pair.image} has {image.width} × {image.height} pixels, its label {pair.label} has "
                f"{label.width} × {label.height}: save both at one size, or remove both"
            )
        classes = Image.fromarray(self._read_classes(label, root / pair.label))
        size = self.width, self.height
        pixels = np.asarray(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC))
        nearest = np.array(ImageOps.fit(classes, size, Image.Resampling.NEAREST))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), nearest

    def _read_classes(self, label: Image.Image, path: Path) -> Pixels:
        if label.mode not in _MODES:
            raise InputError(
                f"{path} is of Pillow's mode {label.mode}; allowed are images whose values are the classes, in grey "
                "(L) or with a palette (P): save it as one of them"
            )
        values = np.asarray(label).astype(np.int64)
        classes = self._class_of_value[np.clip(values, 0, _VALUES - 1)]
        classes = np.where((values < 0) | (values >= _VALUES), _UNKNOWN, classes)
        if (classes == _UNKNOWN).any():
            pairs = [f"{value} {name}" for value, name in zip(self.values, self.table.names, strict=True)]
            more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
            raise InputError(
                f"{path} has the label {values[classes == _UNKNOWN][0]}; the class table has "
                f"{', '.join(pairs[:_NAMED])}{more}: add its class, or ignore it with ignore="
            )
        return classes.astype(np.uint8)


def load_labelled_pixels(
    name: str, root: Path, pairs: Sequence[LabelledPair], shares: Shares, decoding: PairDecoding, note: str = ""
) -> LabelMapSet:
    """Return images and labels of these files below `root`; read and decode them on first use.

    Arrays are cached, and are valid until a file's name, size, time of change or split, or the class table changes.
    Raises InputError for files that cannot be used, a split without an image, a class without a training pixel, and a
    full disk.
    """
    key = [_METHOD, shares, decoding]
    key += [[*stat_file(root, pair.image), *stat_file(root, pair.label), pair.split] for pair in pairs]
    folder = get_cache_folder("labelled-pixels") / digest(key)
    maps, about = load_or_make(
        folder,
        f"decoded {name}",
        load=lambda folder: _load_arrays(folder, decoding),
        make=lambda folder: _write_arrays(name, folder, root, pairs, shares, decoding),
    )
    train, val, test = about["sizes"]
    # no paper says which of these images its figures are of
    sizes, files = (train, val, test), about["files"]
    return LabelMapSet(name, maps, sizes, about["fingerprint"], note, complete=False, files=files)


def _load_arrays(folder: Path, decoding: PairDecoding) -> tuple[LabelMaps, Mapping[str, Any]] | None:
    """Map cached arrays; None if they are absent or damaged."""
    try:
        about = json.loads((folder / _ABOUT).read_text())
        images, labels = (np.load(folder / name, mmap_mode="r") for name in (_IMAGES, _LABELS))
    except (OSError, ValueError, EOFError):
        return None
    count, *shape = sum(about["sizes"]), decoding.height, decoding.width
    shapes = [(array.dtype, array.shape) for array in (images, labels)]
    is_whole = shapes == [(np.uint8, (count, 3, *shape)), (np.uint8, (count, *shape))]
    return (LabelMaps(images, labels), about) if is_whole else None


def _write_arrays(
    name: str, folder: Path, root: Path, pairs: Sequence[LabelledPair], shares: Shares, decoding: PairDecoding
) -> None:
    """Decode all files to two arrays in the order of the splits, and write metadata."""
    contents = hash_files(ImageFiles(root), [pair.image for pair in pairs])
    splits = [pair.split or shares.choose_split(content) for pair, content in zip(pairs, contents, strict=True)]
    order = sorted(range(len(pairs)), key=lambda index: (SPLITS.index(splits[index]), pairs[index].image))
    sizes = [splits.count(split) for split in SPLITS]
    check_split_sizes(name, sizes, SPLITS)
    hashed = hashlib.sha256(digest(sizes, decoding.table).encode())
    size = decoding.height, decoding.width
    shapes: dict[str, tuple[int, ...]] = {_IMAGES: (len(pairs), 3, *size), _LABELS: (len(pairs), *size)}
    write_arrays(name, folder, shapes, [pairs[index] for index in order], lambda p: decoding.decode(root, p), hashed)
    _check_classes(name, np.load(folder / _LABELS, mmap_mode="r")[: sizes[0]], decoding.table)
    about = {"sizes": sizes, "fingerprint": hashed.hexdigest()[:16], "files": [pairs[index].image for index in order]}
    (folder / _ABOUT).write_text(json.dumps(about))


def _check_classes(name: str, labels: Pixels, table: ClassTable) -> None:
    """Raise InputError for a class without a pixel in the training labels (N, H, W)."""
    counts = np.zeros(IGNORED + 1, dtype=np.int64)
    for label in labels:
        counts += np.bincount(label.ravel(), minlength=len(counts))
    for number, class_name in enumerate(table.names):
        if not counts[number]:
            raise InputError(
                f"{name}: class {class_name!r} has no pixel in the training labels: add images with it, remove the "
                "class, or change the shares"
            )

"""Images of your own for classification, as bytes in parquet files with labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.labelled_images import SPLITS, LabelledFile
from trainables.data.arrays.splits import ImageSet
from trainables.data.files.image_sources import ParquetImages, open_parquet
from trainables.data.own_images import OwnImages, sort_labels


@dataclass(frozen=True)
class ImageParquet(OwnImages):
    """Images in parquet files: a column with the bytes of JPEG or PNG files, and one of labels.

    ImageParquet("data", train="train-*.parquet", test="test-*.parquet") has splits of its own;
    ImageParquet("data", "photos.parquet", test=0.2) splits one file by the content of its images. Files of data sets of
    Hugging Face are read as they are, with the names of their classes. Images are decoded as `ImageFolder` does.
    Raises InputError for a size below 8, and for shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the files; by default the working directory."""
    train: str = "*.parquet"
    """A file below root, or a pattern of several."""
    val: str | float | None = None
    """Files of validation images, or a share of those in `train`; by default the task's `validation` decides."""
    test: str | float = 0.2
    """Files of test images, or a share of those in `train`."""
    image: str = "image"
    """The name of the column of images."""
    label: str = "label"
    """The name of the column of labels: words or numbers; classes are numbered in their order."""
    size: int = 64
    """Images are cut to the largest square in their middle, and resized."""
    grey: bool = False
    """Decode one channel of grey instead of RGB."""
    cache: bool = field(default=True, metadata=LOCATION)
    """As in `ImageFolder`. Without it each batch reads the row groups of all its images: write small ones."""
    threads: int | None = field(default=None, metadata=LOCATION)

    def load(self) -> ImageSet:
        """Read all labels, and decode the images on first use.

        Raises InputError for files that are missing or lack a column, a row without label or of a class that training
        does not have, and images that cannot be decoded.
        """
        root = Path(self.root or ".")
        files = self._find_files(root)
        rows = [
            (image, label, "" if split == "train" else split)
            for split, names in files.items()
            for name in names
            for image, label in self._read_labels(root, name)
        ]
        class_names = _read_class_names(open_parquet(root / files["train"][0]), self.label)
        class_names = class_names or sort_labels({label for _, label, split in rows if not split})
        if len(class_names) < 2:
            raise InputError(f"{root / self.train} has {len(class_names)} labels; needed are two or more")
        numbers = {name: number for number, name in enumerate(class_names)}
        if unknown := [(image, label) for image, label, _ in rows if label not in numbers]:
            image, label = unknown[0]
            raise InputError(f"{root / image} is of class {label!r}, which {self.train} does not have")
        images = [LabelledFile(image, numbers[label], split) for image, label, split in rows]
        return self._load_files(ParquetImages(root, self.image), images, class_names)

    def _find_files(self, root: Path) -> dict[str, list[str]]:
        """Return the files of each split, by their paths below root; those of `val` and `test` are not of `train`."""
        given = zip(SPLITS, (self.train, self.val, self.test), strict=True)
        found = {split: _match_files(root, pattern) for split, pattern in given if isinstance(pattern, str)}
        others = {file for split in SPLITS[1:] for file in found.get(split, ())}
        found["train"] = [file for file in found["train"] if file not in others]
        if not found["train"]:
            raise InputError(f"train={self.train!r} has the files of val= and test= alone: give others to train on")
        return found

    def _read_labels(self, root: Path, file: str) -> Iterator[tuple[str, str]]:
        """Yield name and label of each image of a file."""
        parquet = open_parquet(root / file)
        known = parquet.schema_arrow.names
        if lacking := [name for name in (self.image, self.label) if name not in known]:
            raise InputError(f"{root / file} has no column {lacking[0]!r}; its columns are: {', '.join(known)}")
        labels = parquet.read(columns=[self.label]).column(0).to_pylist()
        names = _read_class_names(parquet, self.label)
        for image, label in zip(ParquetImages.name_rows(file, len(labels)), labels, strict=True):
            if label is None or (names and label not in range(len(names))):
                raise InputError(f"{root / image} has the {self.label} {label}: correct it, or remove the row")
            yield image, names[label] if names else str(label)


def _match_files(root: Path, pattern: str) -> list[str]:
    files = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file())
    if not files:
        raise InputError(f"{root / pattern} matches no file; give the folder of the files with root= or --data-dir")
    return files


def _read_class_names(parquet: pq.ParquetFile, label: str) -> list[str]:
    """Return the names of the classes 0, 1, … that Hugging Face's library wrote to a file; empty without them."""
    text = (parquet.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        names: Any = json.loads(text)["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []

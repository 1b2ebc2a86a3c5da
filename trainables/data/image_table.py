"""Images of your own for classification, listed in a table with their labels."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.labelled_images import LabelledFile
from trainables.data.arrays.splits import ImageSet
from trainables.data.files.image_sources import ImageFiles
from trainables.data.files.source_files import find_spelling
from trainables.data.own_images import OwnImages, sort_labels
from trainables.data.table_rows import read_rows


@dataclass(frozen=True)
class ImageTable(OwnImages):
    """Images listed in a CSV file with a header: a column of paths below `root`, one of labels, and one of splits.

    Labels may be any words or numbers; classes are numbered in their order. Images are decoded as `ImageFolder` does.
    Raises InputError for a size below 8, and for shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the table and the images; by default the working directory."""
    table: str = "labels.csv"
    path: str = "path"
    """The name of the column of paths."""
    label: str = "label"
    """The name of the column of labels."""
    split: str | None = None
    """The name of the column with "train", "val" or "test"; by default files are divided by their content."""
    val: float | None = None
    """The share for validation without a column of splits; by default the task's `validation` decides."""
    test: float = 0.2
    """The share for test without a column of splits."""
    size: int = 64
    grey: bool = False
    cache: bool = field(default=True, metadata=LOCATION)
    threads: int | None = field(default=None, metadata=LOCATION)

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            if isinstance(value := getattr(self, name), str):
                raise InputError(
                    f"ImageTable: {name} is {value!r}; allowed is a share of the images, such as 0.2; a column of "
                    "splits is named by split="
                )
        super().__post_init__()

    def load(self) -> ImageSet:
        """Read the table, and decode its images on first use.

        Raises InputError for a table that is missing or lacks a column, a row without path, label or a known split, a
        path that occurs twice, and files that cannot be decoded.
        """
        root = Path(self.root or ".")
        rows = list(read_rows(root / self.table, self.path, (self.label,), self.split))
        labels = [unicodedata.normalize("NFC", row.values[0]) for row in rows]
        class_names = sort_labels(set(labels))
        if len(class_names) < 2:
            raise InputError(f"{root / self.table} has {len(class_names)} labels; needed are two or more")
        numbers = {named: number for number, named in enumerate(class_names)}
        files = [
            LabelledFile(find_spelling(root, row.path), numbers[label], row.split)
            for row, label in zip(rows, labels, strict=True)
        ]
        return self._load_files(ImageFiles(root), files, class_names)

"""Images of your own with numbers or points, listed in a CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from study.errors import InputError
from study.identity import LOCATION
from trainables.data.arrays.decoding import Decoding
from trainables.data.arrays.image_targets import TargetFile, TargetSet, TargetTable, load_image_targets
from trainables.data.arrays.labelled_images import Shares
from trainables.data.files.source_files import find_spelling
from trainables.data.folders import make_root_absolute
from trainables.data.table_rows import read_rows


@dataclass(frozen=True)
class ImageNumbers:
    """Images listed in a CSV file with a header: a column of paths below `root`, and a column for each number.

    ImageNumbers("faces", "ages.csv", numbers=("age",)). Files are divided by their content into training, validation
    and test, unless a column says. Images are decoded as `ImageFolder` does.
    Raises InputError for a size below 8, and for shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the table and the images; by default the working directory."""
    table: str = "numbers.csv"
    numbers: tuple[str, ...] = ()
    """The names of the columns of numbers."""
    path: str = "path"
    """The name of the column of paths."""
    split: str | None = None
    """The name of the column with "train", "val" or "test"; by default files are divided by their content."""
    val: float = 0.1
    """The share for validation without a column of splits."""
    test: float = 0.2
    """The share for test without a column of splits."""
    size: int = 64
    """Images are cut to the largest square in their middle, and resized."""
    grey: bool = False
    """Decode one channel of grey instead of RGB."""

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def target_table(self) -> TargetTable:
        return TargetTable(self.numbers)

    def load(self) -> TargetSet:
        """Read the table, and decode its images on first use.

        Raises InputError for a table that is missing or lacks a column, a row with an empty cell or a word instead of a
        number, a path that occurs twice, and files that cannot be decoded.
        """
        return _load(self)


@dataclass(frozen=True)
class ImagePoints:
    """Images listed in a CSV file with a header: a column of paths below `root`, and two for each point, in pixels.

    ImagePoints("faces", "eyes.csv", points=("left", "right")) reads the columns left_x, left_y, right_x and right_y.
    Pixels are those of the file's image as a viewer shows it, 0 the middle of the first one. Files are divided by their
    content into training, validation and test, unless a column says. Images are decoded as `ImageFolder` does; points
    that the cut removes are counted in the note of the loaded set, and learned as any others.
    Raises InputError for a size below 8, and for shares that leave nothing to train on.
    """

    root: Path | str | None = field(default=None, metadata=LOCATION)
    """The folder of the table and the images; by default the working directory."""
    table: str = "points.csv"
    points: tuple[str, ...] = ()
    """The names of the points."""
    exchanged: tuple[tuple[str, str], ...] = ()
    """Pairs of points that trade places in the mirror image, such as ("left", "right")."""
    path: str = "path"
    split: str | None = None
    val: float = 0.1
    test: float = 0.2
    size: int = 64
    grey: bool = False

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def target_table(self) -> TargetTable:
        return TargetTable(self.points, are_points=True, exchanged=self.exchanged)

    def load(self) -> TargetSet:
        """Read the table, and decode its images on first use.

        Raises InputError as `ImageNumbers.load` does, and for a point outside its image.
        """
        return _load(self)


def _check_settings(data: ImageNumbers | ImagePoints) -> None:
    object.__setattr__(data, "root", data.root or ".")
    make_root_absolute(data)
    data.target_table, Shares(data.val, data.test), Decoding(data.size, data.grey)


def _load(data: ImageNumbers | ImagePoints) -> TargetSet:
    root, shares, decoding = Path(data.root or "."), Shares(data.val, data.test), Decoding(data.size, data.grey)
    return load_image_targets(root.name, root, list(_list_files(data, root)), data.target_table, shares, decoding)


def _list_files(data: ImageNumbers | ImagePoints, root: Path) -> Iterator[TargetFile]:
    columns = data.target_table.outputs
    for row in read_rows(root / data.table, data.path, columns, data.split):
        values = [_read_number(row.where, column, cell) for column, cell in zip(columns, row.values, strict=True)]
        yield TargetFile(find_spelling(root, row.path), tuple(values), row.split, row.where)


def _read_number(where: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} is {cell!r}; allowed is a number: correct it, or remove the row")
    return value

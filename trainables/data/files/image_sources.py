"""The files of images that arrays are decoded from: below a folder, or as bytes in a column of parquet files."""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from study.errors import InputError
from trainables.data.files.source_files import stat_file

_ROW = ", row "
"""Between file and row in the name of an image of a parquet file."""


class ImageSource(Protocol):
    """Image files by name."""

    def stat(self, image: str) -> tuple[object, ...]:
        """Return a value that changes with the image. Raises InputError if it does not exist."""

    def read(self, image: str) -> bytes:
        """Return the bytes of an image file. Raises InputError if they cannot be read."""

    def locate(self, image: str) -> str:
        """Return the place of an image, for messages."""


@dataclass(frozen=True)
class ImageFiles:
    """Files below a folder, by their paths from there."""

    root: Path

    def stat(self, image: str) -> tuple[object, ...]:
        return tuple(stat_file(self.root, image))

    def read(self, image: str) -> bytes:
        try:
            return (self.root / image).read_bytes()
        except OSError as error:
            raise InputError(f"{self.locate(image)} cannot be read ({error.strerror}): check its permissions") from None

    def locate(self, image: str) -> str:
        return str(self.root / image)


class ParquetImages:
    """Images in a column of parquet files below a folder: "FILE, row N", N from 0 with leading zeros.

    The column holds bytes, or structs with a field `bytes`, as data sets of Hugging Face do.
    """

    def __init__(self, root: Path, column: str):
        self._root, self._column = root, column
        self._lock = threading.Lock()  # threads that decode need the same row group, which is read once
        self._find_starts = lru_cache(maxsize=None)(lambda file: _find_row_groups(root / file))
        # images are read row after row; threads may be on both sides of a border
        self._read_group = lru_cache(maxsize=2)(lambda file, group: _read_group(root / file, group, column))

    @staticmethod
    def name_rows(file: str, count: int) -> list[str]:
        """Return the names of the images in the first `count` rows of a file; they sort like the rows."""
        return [f"{file}{_ROW}{row:0{len(str(count))}}" for row in range(count)]

    def stat(self, image: str) -> tuple[object, ...]:
        file, _, row = image.rpartition(_ROW)
        return (*stat_file(self._root, file), int(row))

    def read(self, image: str) -> bytes:
        file, _, row = image.rpartition(_ROW)
        with self._lock:
            starts = self._find_starts(file)
            group = bisect_right(starts, int(row)) - 1
            content = self._read_group(file, group)[int(row) - starts[group]].as_py()
        if not content:
            raise InputError(f"{self.locate(image)} has no {self._column}: fill it in, or remove the row")
        return bytes(content)

    def locate(self, image: str) -> str:
        return str(self._root / image)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file. Raises InputError if it cannot be read."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}): give a parquet file") from None


def _find_row_groups(path: Path) -> list[int]:
    """Return the first row of each row group of a file."""
    about = open_parquet(path).metadata
    return [0, *accumulate(about.row_group(group).num_rows for group in range(about.num_row_groups - 1))]


def _read_group(path: Path, group: int, column: str) -> Any:
    """Return the bytes of a column in a row group: an array of Arrow.

    Raises InputError for a column of another type.
    """
    file = open_parquet(path)
    kind = file.schema_arrow.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return file.read_row_group(group, columns=[f"{column}.bytes"]).column(0).combine_chunks().field("bytes")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return file.read_row_group(group, columns=[column]).column(0)
    raise InputError(f"column {column!r} of {path} is of type {kind}; allowed are bytes of JPEG or PNG files")

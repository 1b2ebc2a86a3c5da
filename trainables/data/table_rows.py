"""Tables of one's own images: a CSV file with a header, a column of paths, and columns of what is known of each."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from study.errors import InputError
from trainables.data.arrays.labelled_images import SPLITS


class TableRow(NamedTuple):
    """A row of a table."""

    where: str
    """The table and the line, for messages."""
    path: str
    values: tuple[str, ...]
    """The cells of the columns that were asked for, none of them empty."""
    split: str
    """One of SPLITS, or "" if the table has no such column."""


def read_rows(table: Path, path: str, columns: Sequence[str], split: str | None) -> Iterator[TableRow]:
    """Yield the rows of a table, given the names of its columns.

    Raises InputError for a table that is missing or lacks a column, a row with an empty cell or without a known split,
    and a path that occurs twice.
    """
    wanted, seen = [path, *columns, *([split] if split else [])], set[str]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if lacking := [column for column in wanted if column not in (reader.fieldnames or ())]:
                found = ", ".join(reader.fieldnames or ()) or "none"
                commas = "; separate columns by commas" if len(reader.fieldnames or ()) == 1 else ""
                raise InputError(f"{table} has no column {lacking[0]!r}; its columns are: {found}{commas}")
            for number, cells in enumerate(reader, 2):
                content = {column: str(cells[column] or "").strip() for column in wanted}
                row = TableRow(
                    where=f"{table}, line {number}",
                    path=content[path],
                    values=tuple(content[column] for column in columns),
                    split=content[split] if split else "",
                )
                _check_row(row, [column for column in (path, *columns) if not content[column]], split, seen)
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{table} cannot be read ({why}): give a CSV file in UTF-8, with a header") from None


def _check_row(row: TableRow, empty: Sequence[str], split: str | None, seen: set[str]) -> None:
    """Check a row, and add its path to those `seen`."""
    if empty:
        raise InputError(f"{row.where} has no {empty[0]}: fill it in, or remove the row")
    if row.path in seen:
        raise InputError(f"{row.where}: {row.path} occurs twice; an image has one row")
    seen.add(row.path)
    if split and row.split not in SPLITS:
        raise InputError(f"{row.where}: {split} is {row.split!r}; allowed are {', '.join(SPLITS)}")

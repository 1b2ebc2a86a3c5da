"""A Parquet file that other programs read without an error while a run writes it.

A program may look at a file several times: for its size, its footer and its row groups, each time by opening it again
or, on S3, by a further request. So each version of the file keeps every byte that versions of the last minute point to:
new row groups are written where none of those bytes lie, the footer behind all of them, and only the row groups named
in the last footer count. Whichever version a program began with, it finds the rows of that version.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import atomic_write

MAGIC = b"PAR1"
"""First and last bytes of a Parquet file."""

RETENTION_SECONDS = 60.0
"""Time for which outdated bytes stay: longer than a program takes from its first to its last look at a file."""

MIN_OLD_FOOTERS = 2**20
FOOTERS_KEPT = 70
"""Bytes, and footers of the present size, behind the last row group at which the file is cut: more than the writes of
the retention time leave there, one a second. A program that knows only the size of a file that was cut fails."""

ROWS_PER_PART = 8192
MAX_BYTES = 2**23
"""Rows or bytes in a file at which its table continues in another: larger ones take longer to write."""

SLACK_BYTES = 1024
"""Room to spare in a gap: the numbers within a row group may take more bytes further back in a file."""

BYTES_PER_COLUMN = 48
"""Overhead of a column in a row group, by which its size is estimated before it is encoded."""

MANY_ROWS = 512
"""Rows in a group that dictionaries and statistics make smaller and faster to read; fewer they make larger."""

MAX_GROUP_ROWS = 1024
"""Rows at which a group no longer grows: larger ones cost more to write again, smaller ones make longer footers."""

Range = tuple[int, int]
"""Start and end of bytes in a file."""


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows, and where they are in the file. Those that an earlier process wrote count as one group."""

    rows: pa.Table
    place: Range = (0, 0)
    footer: Any = None
    """The footer of a file with these rows alone; None until they are placed."""


class PartFile:
    """A file of a table. Rows are added at the end, or replaced by others of the same key; they never move."""

    def __init__(self, path: Path, schema: pa.Schema, key: Sequence[str], rows: pa.Table):
        """Open the file at `path`, which has these rows, or create it with them."""
        self.path, self.schema, self.key = path, schema, list(key)
        self._image, self._groups, self._footer = bytearray(MAGIC), list[RowGroup](), (0, 0)
        self._old_groups: list[tuple[float, Range]] = []
        self._old_footers: list[tuple[float, Range]] = []
        """Outdated bytes, with the time at which they may be overwritten."""
        self._is_merged = True
        """Whether the file has at most one row group, or is as it was opened, with the columns of `schema`."""
        if path.exists():
            self._image = bytearray(path.read_bytes())
            self._footer = 0, len(self._image)
            self._is_merged = pq.read_metadata(pa.BufferReader(bytes(self._image))).schema.equals(
                _make_footer(schema).schema
            )
            self._groups = _split(rows)  # which the next write places again, so that later ones rewrite few rows
        else:
            self._write([RowGroup(rows)] if rows.num_rows else [])

    @property
    def is_full(self) -> bool:
        return len(self._image) >= MAX_BYTES or sum(group.rows.num_rows for group in self._groups) >= ROWS_PER_PART

    def contains(self, key: tuple[Any, ...]) -> bool:
        return key in self._numbers

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows in the place of those of the same keys, new ones at the end, in one replacement of the file.

        Raises OSError if the file cannot be replaced; nothing has changed then.
        """
        last = {tuple(row[name] for name in self.key): row for row in rows}
        replaced = {self._numbers[key]: row for key, row in last.items() if key in self._numbers}
        added = {key: row for key, row in last.items() if key not in self._numbers}
        groups = self._replace_rows(replaced)
        if added:
            groups.append(RowGroup(pa.Table.from_pylist(list(added.values()), schema=self.schema)))
        self._write(_merge_small(groups))
        self._numbers.update({key: number for number, key in enumerate(added, len(self._numbers))})

    def merge(self) -> None:
        """Write all rows as one row group with the columns of `schema`, unless they are one. Raises OSError."""
        if not self._is_merged:
            self._write([RowGroup(_concat(self._groups))] if self._groups else [])

    @cached_property
    def _numbers(self) -> dict[tuple[Any, ...], int]:
        """The number of each row in the file, by key."""
        columns = [[value for group in self._groups for value in group.rows[name].to_pylist()] for name in self.key]
        return {key: number for number, key in enumerate(zip(*columns, strict=True))}

    def _replace_rows(self, replaced: Mapping[int, Mapping[str, Any]]) -> list[RowGroup]:
        """Return the row groups with other rows at these numbers."""
        groups, first = [], 0
        for group in self._groups:
            count = group.rows.num_rows
            numbers = [number for number in replaced if first <= number < first + count]
            if numbers:
                new = pa.Table.from_pylist([dict(replaced[number]) for number in numbers], schema=self.schema)
                order = np.arange(count)
                order[np.array(numbers) - first] = np.arange(count, count + len(numbers))
                group = RowGroup(pa.concat_tables([group.rows, new]).take(pa.array(order)).combine_chunks())
            groups.append(group)
            first += count
        return groups

    def _write(self, groups: Sequence[RowGroup]) -> None:
        """Replace the file by a version with these row groups, of which those without a footer are placed."""
        now = time.monotonic()
        replaced = [(now + RETENTION_SECONDS, group.place) for group in self._groups if group not in groups]
        old_groups = [one for one in self._old_groups if one[0] > now] + replaced
        old_footers = [one for one in self._old_footers if one[0] > now] + [(now + RETENTION_SECONDS, self._footer)]
        kept = [place for _, place in old_groups] + [group.place for group in groups if group.footer]
        image, placed = bytearray(self._image), []
        for group in groups:
            if not group.footer:
                group = _place(group, image, [*kept, *(place for _, place in old_footers)])
                kept.append(group.place)
            placed.append(group)
        end = max((end for _, end in kept), default=len(MAGIC))
        content = _format_footer(self.schema, placed)
        if len(image) - end > max(MIN_OLD_FOOTERS, FOOTERS_KEPT * len(content)):
            del image[end:]
            old_footers = []
        footer = len(image), len(image) + len(content)
        image += content
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(image)
        self._image, self._groups, self._footer = image, placed, footer
        self._old_groups, self._old_footers = old_groups, old_footers
        self._is_merged = len(placed) <= 1


def _concat(groups: Iterable[RowGroup]) -> pa.Table:
    return pa.concat_tables([group.rows for group in groups]).combine_chunks()


def _split(rows: pa.Table) -> list[RowGroup]:
    return [RowGroup(rows.slice(start, MAX_GROUP_ROWS)) for start in range(0, rows.num_rows, MAX_GROUP_ROWS)]


def _merge_small(groups: list[RowGroup]) -> list[RowGroup]:
    """Merge the last groups so that each has more than twice the rows of the next: footers stay short.

    Groups of MAX_GROUP_ROWS stay as they are: a row that is written again costs the rewriting of its group.
    """
    while len(groups) > 1:
        count, last = groups[-2].rows.num_rows, groups[-1].rows.num_rows
        if count > 2 * last or count >= MAX_GROUP_ROWS:
            break
        groups = [*groups[:-2], RowGroup(_concat(groups[-2:]))]
    return groups


def _place(group: RowGroup, image: bytearray, kept: Sequence[Range]) -> RowGroup:
    """Write the group into the first gap between the bytes to keep, or behind them; return it with its place."""
    start = _find_gap(kept, group.rows.nbytes + BYTES_PER_COLUMN * group.rows.num_columns)
    content, footer = _encode(group.rows, start)
    gap = _find_gap(kept, len(content) + SLACK_BYTES)
    if gap != start:
        start = gap
        content, footer = _encode(group.rows, start)
    image += bytes(max(0, start + len(content) - len(image)))
    image[start : start + len(content)] = content
    return RowGroup(group.rows, (start, start + len(content)), footer)


def _find_gap(kept: Sequence[Range], size: int) -> int:
    """Return the start of the first `size` bytes that are not to be kept."""
    start = len(MAGIC)
    for low, high in sorted(kept):
        if low - start >= size:
            break
        start = max(start, high)
    return start


def _encode(rows: pa.Table, start: int) -> tuple[bytes, Any]:
    """Return rows as the bytes of a row group from `start` on, and the footer of a file with this row group alone."""
    sink, many = pa.BufferOutputStream(), rows.num_rows >= MANY_ROWS
    with pq.ParquetWriter(sink, rows.schema, compression="zstd", use_dictionary=many, write_statistics=many) as file:
        sink.write(bytes(start - len(MAGIC)))  # the writer counts the bytes written so far
        file.write_table(rows)
    content = sink.getvalue()
    footer = pq.read_metadata(pa.BufferReader(content))
    return content.slice(start, len(content) - footer.serialized_size - 8 - start).to_pybytes(), footer


def _make_footer(schema: pa.Schema) -> Any:
    """Return the footer of a file without rows."""
    return pq.read_metadata(pa.BufferReader(_encode_empty(schema)))


@lru_cache(maxsize=8)
def _encode_empty(schema: pa.Schema) -> pa.Buffer:
    """Return a file without rows; each write needs its footer."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    return sink.getvalue()


def _format_footer(schema: pa.Schema, groups: Iterable[RowGroup]) -> bytes:
    """Return the end of a file with these row groups."""
    sink, footer = pa.BufferOutputStream(), _make_footer(schema)
    for group in groups:
        footer.append_row_groups(group.footer)
    footer.write_metadata_file(sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content[len(MAGIC) :]

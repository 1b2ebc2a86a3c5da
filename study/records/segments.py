"""The rows of trials and epochs, a study's only state apart from study.json. docs/records.md explains each column.

Rows are written as small Parquet segments, each complete or absent (written to a temporary file, then renamed) and
named in the order of writing. Small ones are merged while a study runs, all of them by `compact`. Merged ones stay for
a while, so that pandas, DuckDB and others can read what they have listed. Of several rows for one trial, or for one
trial and epoch, the last written counts.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import atomic_write
from study.records.columns import EPOCH_COLUMNS, KEYS, SETTING_PREFIX, TRIAL_COLUMNS
from study.records.paths import StudyPaths

FAN_IN = 8
"""Number of neighbouring segments of one size that are merged into one of the next size, as in a log-structured merge
tree: few files, and each row is rewritten a logarithmic number of times."""

RETENTION_SECONDS = 60.0
"""Time for which merged segments stay: longer than a reader takes from listing a folder to opening its last file."""

LAST_RETENTION_SECONDS = 4.0
"""The same at the end of a run, which waits for it; Ray, which ends meanwhile, takes most of it."""

EMPTY_SEGMENT = f"{0:08d}.parquet"
"""A segment without rows in a new table, for readers that refuse an empty folder; others start at 1."""

READING_ATTEMPTS = 20
"""A segment that is merged between listing and reading costs one attempt."""


class RecordsError(Exception):
    """A segment or study.json that cannot be read or written; the message names the file and the problem."""


class SegmentTable:
    """A table: one folder of segments. Rows are kept in memory until `flush`, which writes them with an fsync."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema
        self._pending: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        empty = folder / EMPTY_SEGMENT
        self._segments = [(path, _size_class(path)) for path in list_segments(folder) if path != empty]
        self._next = 1 + max((int(path.stem) for path, _ in self._segments), default=0)
        if not self._segments:
            _write(empty, _make_empty_table(schema))
        self._merged = [(time.monotonic(), empty)]
        """Segments whose rows are in another one too, and when they were merged; the oldest first."""

    def append(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))

    def flush(self) -> None:
        """Write the pending rows as one segment.

        Raises RecordsError if they cannot be written; they stay pending.
        """
        if self._pending:
            path = self.folder / f"{self._next:08d}.parquet"
            _write(path, pa.Table.from_pylist(self._pending, schema=self.schema))
            self._next += 1
            self._segments.append((path, 0))
            self._pending.clear()
            self._merge_neighbours()
            self.delete_merged(RETENTION_SECONDS)

    def read_rows(self) -> list[dict[str, Any]]:
        """Return the last written row of each key, in the order in which the keys were first written."""
        rows: list[dict[str, Any]] = self._select_last(read_segments(self.folder, self.schema)).to_pylist()
        return rows

    def compact(self) -> None:
        """Merge all segments into one, without rows that were written again later."""
        self.flush()
        rows = read_segments(self.folder, self.schema)
        last = self._select_last(rows)
        if len(self._segments) > 1 or last.num_rows < rows.num_rows:
            self._merge(len(self._segments), last)

    def delete_merged(self, seconds: float) -> None:
        """Delete segments that were merged at least this many seconds ago; a kill leaves the newest ones."""
        now = time.monotonic()
        while self._segments and self._merged and now - self._merged[0][0] >= seconds:
            self._merged.pop(0)[1].unlink(missing_ok=True)

    def count_seconds_since_merge(self) -> float:
        """Return the seconds since the last merge, or since the table was opened; infinity if nothing is to delete."""
        return time.monotonic() - self._merged[-1][0] if self._merged else math.inf

    def _merge_neighbours(self) -> None:
        while len(self._segments) >= FAN_IN and len({size for _, size in self._segments[-FAN_IN:]}) == 1:
            merged = [_read(path, self.schema) for path, _ in self._segments[-FAN_IN:]]
            self._merge(FAN_IN, pa.concat_tables(merged))

    def _merge(self, count: int, rows: pa.Table) -> None:
        """Replace the last `count` segments by one with `rows`, which is written after them and so counts."""
        old = self._segments[-count:]
        path = self.folder / f"{self._next:08d}.parquet"
        _write(path, rows)  # a kill before the old ones are deleted leaves rows twice, and reading drops the first
        self._next += 1
        self._segments[-count:] = [(path, old[-1][1] + 1)]
        self._merged += [(time.monotonic(), path) for path, _ in old]

    def _select_last(self, rows: pa.Table) -> pa.Table:
        """Return the last row of each key, sorted by the position of the key's first row."""
        if not rows.num_rows:
            return rows  # also spares the first run of a study the import of pandas, by pa.array
        key, position = KEYS[self.folder.name], pa.array(np.arange(rows.num_rows))
        positions = rows.select(key).append_column("position", position)
        spans = positions.group_by(key).aggregate([("position", "min"), ("position", "max")])
        return rows.take(spans.sort_by("position_min")["position_max"])


class Records:
    """The tables of a study's folder, with a column for each of the task's metrics, and in trials/ for each setting."""

    def __init__(self, folder: Path, metrics: Iterable[str], settings: Mapping[str, pa.DataType] | None = None):
        values = [(name, pa.float64()) for name in metrics]
        self.folder, self._settings = folder, settings or {}
        columns = [*TRIAL_COLUMNS, *self._settings.items(), *values]
        self.trials = SegmentTable(StudyPaths(folder).trials, pa.schema(columns))
        self.epochs = SegmentTable(StudyPaths(folder).epochs, pa.schema([*EPOCH_COLUMNS, *values]))

    def add_trial(self, row: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Add a row of trials/, with its settings also in columns of their own."""
        given = {SETTING_PREFIX + name: value for name, value in params.items()}
        texts = {
            name: str(given[name]) for name, kind in self._settings.items() if name in given and kind == pa.string()
        }
        self.trials.append({**row, **given, **texts})

    def flush(self) -> None:
        self.epochs.flush()  # first: an ended trial must have all its epochs on record
        self.trials.flush()

    def compact(self) -> None:
        self.epochs.compact()
        self.trials.compact()

    def delete_merged(self, wait: bool = True) -> None:
        """Delete the segments that merges left; with `wait`, once readers had the time to open them."""
        age = min(self.epochs.count_seconds_since_merge(), self.trials.count_seconds_since_merge())
        time.sleep(max(0.0, LAST_RETENTION_SECONDS - age) if wait else 0.0)
        self.epochs.delete_merged(0)
        self.trials.delete_merged(0)


def list_segments(folder: Path) -> list[Path]:
    """Return a table's segment files in the order of writing."""
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdigit())


def read_segments(folder: Path, schema: pa.Schema) -> pa.Table:
    """Return all rows of all segments in the order of writing, also while a run merges them.

    Raises RecordsError naming the first segment that cannot be read.
    """
    for _ in range(READING_ATTEMPTS):
        written = [path for path in list_segments(folder) if path.name != EMPTY_SEGMENT]
        try:
            return pa.concat_tables([_make_empty_table(schema), *(_read(path, schema) for path in written)])
        except FileNotFoundError:
            continue  # merged since it was listed
    raise RecordsError(f"{folder} changes faster than it can be read: stop its study, then try again")


def _make_empty_table(schema: pa.Schema) -> pa.Table:
    """Return a table without rows. schema.empty_table() would import pandas, for which a dry run would wait."""
    return pa.Table.from_batches([], schema)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ESTALE:
            raise FileNotFoundError(path) from None  # deleted, here or on a file server
        raise RecordsError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy, or delete it; "
            "its trials are then run again"
        ) from None


def _write(path: Path, table: pa.Table) -> None:
    try:
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    except OSError as error:
        raise RecordsError(
            f"{path.parent} cannot be written ({error.strerror or error}): free disk space, then run the same "
            "command again; all rows on disk are intact"
        ) from None


def _size_class(path: Path) -> int:
    """Return how often a segment of this many rows has been merged; -1 for a damaged one, which is not merged."""
    try:
        return int(math.log(max(pq.read_metadata(path).num_rows, 1), FAN_IN))
    except (OSError, pa.ArrowException):
        return -1

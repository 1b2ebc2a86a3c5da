"""The rows of trials and epochs, a study's only state apart from study.json. docs/records.md explains each column.

A table is a folder of two Parquet files, which always exist and are replaced by atomic renames. Each flush adds a row
group to `latest`; its other bytes before the footer stay the same, so that a program that has read the footer finds the
rows even in the next file. Some flushes later rows are copied to `earlier`, and stay in `latest` for a while: pandas,
DuckDB and others find each row in one file or in both, in whichever order and at whatever moment they open them. Of
several rows for one trial, or for one trial and epoch, the last written counts. Numbered files are of versions that
wrote a segment each second; their rows come first.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import atomic_write
from study.records.columns import EPOCH_COLUMNS, KEYS, SETTING_PREFIX, TRIAL_COLUMNS
from study.records.paths import StudyPaths

EARLIER, LATEST = "earlier.parquet", "latest.parquet"
"""The files of a table, in the order of writing and by name."""

FLUSHES_PER_COPY = 16
"""Flushes whose rows `earlier` does not have: more make `latest` slower to write, fewer write `earlier` more often."""

RETENTION_SECONDS = 60.0
"""Time for which copied rows stay in `latest`: longer than a reader takes from opening one file to opening the other.
"""

LAST_RETENTION_SECONDS = 4.0
"""The same at the end of a run, which waits for it; Ray, which ends meanwhile, takes most of it."""

READING_ATTEMPTS = 20
"""A file that a file server replaces while it is read costs one attempt."""


class RecordsError(Exception):
    """A table or study.json that cannot be read or written; the message names the file and the problem."""


class ParquetTable:
    """A table in one folder. Rows are kept in memory until `flush`, which writes them with an fsync."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema
        self._earlier, self._latest = folder / EARLIER, folder / LATEST
        self._pending: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._earlier, self._latest):
            if not path.exists():
                _write(path, [_make_empty_table(schema)])
        rows = _read(self._latest, schema)
        self._groups = [rows] if rows.num_rows else []
        """The row groups of `latest`: first those copied to `earlier`, then one for each flush."""
        self._copied: list[tuple[float, float]] = []
        """When the first and the last rows of each of the copied groups were copied."""

    def append(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))

    def flush(self) -> None:
        """Write the pending rows.

        Raises RecordsError if they cannot be written; they stay pending.
        """
        if self._pending:
            self._drop_copied(RETENTION_SECONDS)
            groups = [*self._groups, pa.Table.from_pylist(self._pending, schema=self.schema)]
            _write(self._latest, groups)
            self._groups = groups
            self._pending.clear()
            if len(groups) - len(self._copied) >= FLUSHES_PER_COPY:
                self._copy(pa.concat_tables([_read(self._earlier, self.schema), *groups[len(self._copied) :]]))

    def read_rows(self) -> list[dict[str, Any]]:
        """Return the last written row of each key, in the order in which the keys were first written."""
        rows: list[dict[str, Any]] = self._select_last(read_parquet_table(self.folder, self.schema)).to_pylist()
        return rows

    def compact(self) -> None:
        """Copy all rows to `earlier`, without those that were written again later."""
        self.flush()
        rows = read_parquet_table(self.folder, self.schema)
        last = self._select_last(rows)
        if self._groups or last.num_rows < rows.num_rows or self._list_numbered():
            self._copy(last)

    def delete_copied(self) -> None:
        """Delete the rows and files of which `earlier` has a copy."""
        if self._copied:
            self._drop_copied(0)
            _write(self._latest, self._groups or [_make_empty_table(self.schema)])
            for path in self._list_numbered():
                path.unlink(missing_ok=True)

    def count_seconds_since_copy(self) -> float:
        """Return the seconds since rows were last copied to `earlier`; infinity if none of them is left in `latest`."""
        return time.monotonic() - self._copied[-1][1] if self._copied else math.inf

    def _copy(self, rows: pa.Table) -> None:
        """Write `rows`, which are all that `earlier` is to have; the groups copied within a while become one."""
        _write(self._earlier, [rows])
        start = now = time.monotonic()
        new = self._groups[len(self._copied) :]
        del self._groups[len(self._copied) :]
        if self._copied and now - self._copied[-1][0] < RETENTION_SECONDS / 4:
            start, _ = self._copied.pop()
            new.insert(0, self._groups.pop())
        self._groups.append(pa.concat_tables([_make_empty_table(self.schema), *new]).combine_chunks())
        self._copied.append((start, now))

    def _drop_copied(self, seconds: float) -> None:
        """Drop the groups that were copied at least this many seconds ago; the next write deletes their rows."""
        while self._copied and time.monotonic() - self._copied[0][1] >= seconds:
            del self._copied[0], self._groups[0]

    def _list_numbered(self) -> list[Path]:
        return [path for path in list_parquet_files(self.folder) if path.stem.isdigit()]

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
        self.trials = ParquetTable(StudyPaths(folder).trials, pa.schema(columns))
        self.epochs = ParquetTable(StudyPaths(folder).epochs, pa.schema([*EPOCH_COLUMNS, *values]))

    def add_trial(self, row: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Add a row of trials/, with its settings also in columns of their own, but for schedules."""
        given = {SETTING_PREFIX + name: value for name, value in params.items() if not isinstance(value, list)}
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

    def delete_copied(self, wait: bool = True) -> None:
        """Leave each row once; with `wait`, when readers had the time to open the second file."""
        age = min(self.epochs.count_seconds_since_copy(), self.trials.count_seconds_since_copy())
        time.sleep(max(0.0, LAST_RETENTION_SECONDS - age) if wait else 0.0)
        self.epochs.delete_copied()
        self.trials.delete_copied()


def list_parquet_files(folder: Path) -> list[Path]:
    """Return a table's files in the order of writing."""
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdigit() or path.name in (EARLIER, LATEST))


def read_parquet_table(folder: Path, schema: pa.Schema) -> pa.Table:
    """Return all rows in the order of writing, also while a run writes; copied ones twice.

    Raises RecordsError naming the first file that cannot be read.
    """
    for _ in range(READING_ATTEMPTS):
        try:
            return pa.concat_tables(
                [_make_empty_table(schema), *(_read(path, schema) for path in list_parquet_files(folder))]
            )
        except FileNotFoundError:
            continue  # replaced on a file server, or of an earlier version and merged
    raise RecordsError(f"{folder} changes faster than it can be read: stop its study, then try again")


def open_once(path: Path) -> pa.BufferReader:
    """Return the content of a file. PyArrow opens a path twice, and a run may replace the file in between."""
    return pa.BufferReader(path.read_bytes())


def _make_empty_table(schema: pa.Schema) -> pa.Table:
    """Return a table without rows. schema.empty_table() would import pandas, for which a dry run would wait."""
    return pa.Table.from_batches([], schema)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        content = open_once(path)
        if not pq.read_metadata(content).num_rows:  # read_table imports pandas, too
            return _make_empty_table(schema)
        return pq.read_table(content, schema=schema, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ESTALE:
            raise FileNotFoundError(path) from None  # deleted, here or on a file server
        raise RecordsError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy, or delete it; "
            "its trials are then run again"
        ) from None


def _write(path: Path, groups: Sequence[pa.Table]) -> None:
    large = path.name == EARLIER
    try:
        with (
            atomic_write(path) as temporary,
            # without dictionaries and statistics groups of few rows are a third of the size
            pq.ParquetWriter(
                temporary, groups[0].schema, compression="zstd", use_dictionary=large, write_statistics=large
            ) as file,
        ):
            for group in groups:
                file.write_table(group)
    except OSError as error:
        raise RecordsError(
            f"{path.parent} cannot be written ({error.strerror or error}): free disk space, then run the same "
            "command again; all rows on disk are intact"
        ) from None

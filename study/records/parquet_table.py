"""The rows of trials and epochs, a study's only state apart from study.json. docs/records.md explains each column.

A table is a folder of Parquet files, `part-00001.parquet` and so on, each of which can be read at any moment
(part_file.py). A row is added to the last file, which becomes the last but one when it is large, and stays where it is;
a later row of the same trial, or of the same trial and epoch, takes its place. So a program that reads the files one
after the other finds each row once. Other files, in which rows may be repeated, are of earlier versions; their rows
come first, and of several rows of one key the last one counts.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.records.columns import EPOCH_COLUMNS, KEYS, SETTING_PREFIX, TRIAL_COLUMNS
from study.records.part_file import ROWS_PER_PART, PartFile
from study.records.paths import StudyPaths

PART = "part-"
"""Start of the names of a table's files, before a number of five digits."""

OLD_NAMES = ("earlier", "latest")
"""Names of files of earlier versions; others are numbers."""

OPEN_PARTS = 4
"""Files whose content is kept in memory: rows that are written again are mostly in the last ones."""

READING_ATTEMPTS = 20
"""A file that a file server replaces while it is read costs one attempt."""


class RecordsError(Exception):
    """A table or study.json that cannot be read or written; the message names the file and the problem."""


class ParquetTable:
    """A table in one folder. Rows are kept in memory until `flush`, which writes them with an fsync."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema, self.key = folder, schema, KEYS[folder.name]
        self._pending: list[dict[str, Any]] = []
        self._open: dict[Path, PartFile] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [path for path in list_parquet_files(folder) if path.stem.startswith(PART)]
        if not list_parquet_files(folder):
            self._add_part(_make_empty_table(schema))
        self._converted = False
        self._last_epochs = self._read_last_epochs()

    def append(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))

    def flush(self) -> None:
        """Write the pending rows, in the order in which they were appended.

        Raises RecordsError if they cannot be written; they stay pending.
        """
        if not self._pending:
            return
        with self._translate_errors():
            self._convert()
            if self._open_part(self._paths[-1]).is_full:
                self._add_part(_make_empty_table(self.schema))
            for path, rows in groupby(self._pending, self._find_part):
                self._write(path, list(rows))
        self._pending.clear()

    def read_rows(self) -> list[dict[str, Any]]:
        """Return the last written row of each key, in the order in which the keys were first written."""
        rows: list[dict[str, Any]] = self._select_last(read_parquet_table(self.folder, self.schema)).to_pylist()
        return rows

    def compact(self) -> None:
        """Write the pending rows, and all rows of each file that is open as one row group."""
        self.flush()
        with self._translate_errors():
            self._convert()
            for part in self._open.values():
                part.merge()

    def replace_rows(self, rows: pa.Table) -> None:
        """Write the last one of `rows` for each key into new files, then delete the other files."""
        others, last = list_parquet_files(self.folder), self._select_last(rows)
        with self._translate_errors():
            for start in range(0, max(1, last.num_rows), ROWS_PER_PART):
                self._add_part(last.slice(start, ROWS_PER_PART))
            for path in others:
                self._open.pop(path, None)
                path.unlink(missing_ok=True)
            self._paths = [path for path in self._paths if path not in others]
        self._last_epochs = self._read_last_epochs()

    def _convert(self) -> None:
        """Give files of earlier versions, or without some of the columns, the form of this version."""
        if not self._converted:
            if any(not path.stem.startswith(PART) for path in list_parquet_files(self.folder)):
                self.replace_rows(read_parquet_table(self.folder, self.schema))
            for path in self._paths:
                if not pq.read_schema(path).equals(self.schema):
                    self._open_part(path).merge()
        self._converted = True

    def _add_part(self, rows: pa.Table) -> None:
        number = int(self._paths[-1].stem.removeprefix(PART)) + 1 if self._paths else 1
        path = self.folder / f"{PART}{number:05}.parquet"
        self._keep_open(PartFile(path, self.schema, self.key, rows.combine_chunks()))
        self._paths.append(path)

    def _open_part(self, path: Path) -> PartFile:
        part = self._open.pop(path, None) or PartFile(path, self.schema, self.key, _read(path, self.schema))
        return self._keep_open(part)

    def _keep_open(self, part: PartFile) -> PartFile:
        self._open[part.path] = part
        if len(self._open) > OPEN_PARTS:
            del self._open[next(iter(self._open))]
        return part

    def _find_part(self, row: Mapping[str, Any]) -> Path:
        """Return the file that has a row of the same key, else the last file."""
        if row.get("epoch", 0) <= self._last_epochs.get(row["trial_id"], -1):
            key = tuple(row[name] for name in self.key)
            for path in reversed(self._paths):
                if self._open_part(path).contains(key):
                    return path
        return self._paths[-1]

    def _write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        self._open_part(path).write(rows)
        for row in rows:
            last = self._last_epochs.get(row["trial_id"], 0)
            self._last_epochs[row["trial_id"]] = max(last, row.get("epoch", 0))

    def _read_last_epochs(self) -> dict[str, int]:
        """Return the last epoch of each trial that has rows; 0 in a table without epochs."""
        names = [field for field in self.schema if field.name in self.key]
        rows = read_parquet_table(self.folder, pa.schema(names))
        if not rows.num_rows:
            return {}
        last = rows.group_by("trial_id").aggregate([(self.key[-1], "max")])
        epochs = last.column(f"{self.key[-1]}_max").to_pylist() if "epoch" in self.key else [0] * last.num_rows
        return dict(zip(last.column("trial_id").to_pylist(), epochs, strict=True))

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordsError(
                f"{self.folder} cannot be written ({error.strerror or error}): free disk space, then run the same "
                "command again; all rows on disk are intact"
            ) from None

    def _select_last(self, rows: pa.Table) -> pa.Table:
        """Return the last row of each key, sorted by the position of the key's first row."""
        if not rows.num_rows:
            return rows  # also spares the first run of a study the import of pandas, by pa.array
        position = pa.array(np.arange(rows.num_rows))
        positions = rows.select(self.key).append_column("position", position)
        spans = positions.group_by(self.key).aggregate([("position", "min"), ("position", "max")])
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


def list_parquet_files(folder: Path) -> list[Path]:
    """Return a table's files in the order of writing."""
    paths = folder.glob("*.parquet")
    return sorted(one for one in paths if one.stem.isdigit() or one.stem in OLD_NAMES or one.stem.startswith(PART))


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

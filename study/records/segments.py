"""The study's only state: rows of trials and epochs in parquet, and study.json. docs/records.md explains each column.

Rows are written as small segments, each complete or absent (written aside, then renamed), named in the order of
writing. Small ones are merged while a study runs, all of them by `compact`. Of several rows for one trial, or one trial
and epoch, the last written counts.
Imports neither ray nor torch: reports read a study through this file alone.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import atomic_write

SCHEMA_VERSION = 2
"""Since 2 a class is described by its public name, and runs and rows name the version of the code."""

TIME = pa.timestamp("us", tz="UTC")

TRIAL_COLUMNS = (
    ("trial_id", pa.string()),
    ("cell", pa.string()),
    ("student", pa.string()),
    ("arm", pa.string()),
    ("phase", pa.string()),
    ("number", pa.int32()),
    ("seed", pa.int64()),
    ("state", pa.string()),
    ("reason", pa.string()),
    ("epochs", pa.int32()),
    ("epochs_done", pa.int32()),
    ("params", pa.string()),
    ("config", pa.string()),
    ("seconds", pa.float64()),
    ("started", TIME),
    ("ended", TIME),
    ("worker", pa.string()),
    ("device", pa.string()),
    ("cpus", pa.float64()),
    ("gpus", pa.float64()),
    ("code", pa.string()),
)

EPOCH_COLUMNS = (
    ("trial_id", pa.string()),
    ("cell", pa.string()),
    ("phase", pa.string()),
    ("epoch", pa.int32()),
    ("seconds", pa.float64()),
    ("recorded", TIME),
    ("schedules", pa.string()),
)

FAN_IN = 8
"""So many neighbouring segments of one size are merged into one of the next: few files, and no row is moved often."""

READING_ATTEMPTS = 20

KEYS = {"trials": ("trial_id",), "epochs": ("trial_id", "epoch")}


class RecordsError(Exception):
    """A segment or study.json that cannot be read or written: which one, and what is wrong with it."""


class Table:
    """One folder of segments. Rows wait in memory until `flush`; a flushed row survives anything but the disk."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema
        self._pending: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._segments = [(path, _size_class(path)) for path in segments(folder)]
        self._next = 1 + max((int(path.stem) for path, _ in self._segments), default=0)

    def append(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))

    def flush(self) -> None:
        """Write what is pending as one segment.

        Raises RecordsError if that cannot be done; the rows stay pending.
        """
        if self._pending:
            path = self.folder / f"{self._next:08d}.parquet"
            _write(path, pa.Table.from_pylist(self._pending, schema=self.schema))
            self._next += 1
            self._segments.append((path, 0))
            self._pending.clear()
            self._merge_neighbours()

    def rows(self) -> list[dict[str, Any]]:
        """Every row on disk, one per key, the last written where there are several, in the order of first writing."""
        rows: list[dict[str, Any]] = self._last_per_key(read_segments(self.folder, self.schema)).to_pylist()
        return rows

    def compact(self) -> None:
        """Merge all segments into one, without the rows that no longer count."""
        self.flush()
        rows = read_segments(self.folder, self.schema)
        kept = self._last_per_key(rows)
        if len(self._segments) > 1 or kept.num_rows < rows.num_rows:
            self._merge(len(self._segments), kept)

    def _merge_neighbours(self) -> None:
        while len(self._segments) >= FAN_IN and len({size for _, size in self._segments[-FAN_IN:]}) == 1:
            merged = [_read(path, self.schema) for path, _ in self._segments[-FAN_IN:]]
            self._merge(FAN_IN, pa.concat_tables(merged))

    def _merge(self, count: int, rows: pa.Table) -> None:
        """Let `rows` stand in the place of the last `count` segments."""
        *old, (last, size) = self._segments[-count:]
        _write(last, rows)  # in one step; a kill from here on leaves doubled rows, which reading drops
        self._segments[-count:] = [(last, size + 1)]
        for path, _ in reversed(old):  # newest first: what a kill leaves is a beginning, in order
            path.unlink(missing_ok=True)

    def _last_per_key(self, rows: pa.Table) -> pa.Table:
        place = pa.array(range(rows.num_rows), pa.int64())
        by_key = rows.select(KEYS[self.folder.name]).append_column("place", place)
        spans = by_key.group_by(KEYS[self.folder.name]).aggregate([("place", "min"), ("place", "max")])
        return rows.take(spans.sort_by("place_min")["place_max"])


class Records:
    """A study's folder: study.json, trials/, epochs/."""

    def __init__(self, folder: Path, metrics: Iterable[str]):
        values = [(name, pa.float64()) for name in metrics]
        self.folder = folder
        self.trials = Table(folder / "trials", pa.schema([*TRIAL_COLUMNS, *values]))
        self.epochs = Table(folder / "epochs", pa.schema([*EPOCH_COLUMNS, *values]))

    def flush(self) -> None:
        self.epochs.flush()  # first: a trial that has ended must have all its epochs on record
        self.trials.flush()

    def compact(self) -> None:
        self.epochs.compact()
        self.trials.compact()


def segments(folder: Path) -> list[Path]:
    """A table's segment files in the order of writing."""
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdigit())


def read_segments(folder: Path, schema: pa.Schema) -> pa.Table:
    """All rows of all segments, in the order of writing; also while a run merges them.

    Raises RecordsError naming the first segment that cannot be read.
    """
    for _ in range(READING_ATTEMPTS):
        try:
            return pa.concat_tables([schema.empty_table(), *(_read(path, schema) for path in segments(folder))])
        except FileNotFoundError:
            continue  # merged into a later one since it was listed
    raise RecordsError(f"{folder} changes faster than it can be read: try again when its study does not run")


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, schema=schema, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ESTALE:
            raise FileNotFoundError(path) from None  # gone, here or on a file server
        raise RecordsError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy, or delete it; "
            "the trials it held are then run again"
        ) from None


def _write(path: Path, table: pa.Table) -> None:
    try:
        with atomic_write(path) as aside:
            pq.write_table(table, aside, compression="zstd")
    except OSError as error:
        raise RecordsError(
            f"{path.parent} cannot be written ({error.strerror or error}): make room or mend the disk, then run the "
            "same command again; what is on record is whole"
        ) from None


def _size_class(path: Path) -> int:
    """How often a segment of so many rows would have been merged. A damaged one is not merged with others."""
    try:
        return int(math.log(max(pq.read_metadata(path).num_rows, 1), FAN_IN))
    except (OSError, pa.ArrowException):
        return -1


def write_study(folder: Path, study: Mapping[str, Any]) -> None:
    """Write study.json, complete or not at all."""
    text = json.dumps(study, indent=1, ensure_ascii=False)
    try:
        with atomic_write(folder / "study.json") as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"{folder / 'study.json'} cannot be written ({error.strerror or error})") from None


def read_study(folder: Path) -> dict[str, Any]:
    """study.json of a study's folder.

    Raises RecordsError if there is none, if it is no JSON, or if its schema is newer than this version knows.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise RecordsError(f"{folder} is no study: it has no study.json")
    try:
        study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordsError(f"{path} is damaged: {error}") from None
    if not isinstance(study, dict):
        raise RecordsError(f"{path} is damaged: it does not describe a study")
    if study.get("schema", 0) > SCHEMA_VERSION:
        raise RecordsError(
            f"{path} has schema {study['schema']}; this version reads up to {SCHEMA_VERSION}: upgrade kdstudy"
        )
    return study

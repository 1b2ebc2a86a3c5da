"""The study's only state: rows of trials and epochs in parquet, and study.json. docs/records.md explains each column.

Rows are written as small segments, each complete or absent (written aside, then renamed), named in the order of
writing. `compact` merges them. Of several rows for one trial, or one trial and epoch, the last written counts.
Imports neither ray nor torch: reports read a study through this file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic import replacing

SCHEMA_VERSION = 1

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

MOST_SEGMENTS = 1000
"""More are merged while a study runs, so that it takes no more than a second or two when it is interrupted."""

KEYS = {"trials": ("trial_id",), "epochs": ("trial_id", "epoch")}


class RecordsError(Exception):
    """A segment or study.json that cannot be read: which one, and what is wrong with it."""


class Table:
    """One folder of segments. Rows wait in memory until `flush`; a flushed row survives anything but the disk."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema
        self._pending: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._next = 1 + max((int(path.stem) for path in segments(folder)), default=0)

    def append(self, row: Mapping[str, Any]) -> None:
        self._pending.append(dict(row))

    def flush(self) -> None:
        """Write what is pending as one segment."""
        if self._pending:
            self._write(pa.Table.from_pylist(self._pending, schema=self.schema))
            self._pending.clear()

    def rows(self) -> list[dict[str, Any]]:
        """Every row on disk, one per key, the last written where there are several, in the order of first writing."""
        return _last_per_key(read_segments(self.folder, self.schema), KEYS[self.folder.name])

    def compact(self) -> None:
        """Merge all segments into one. A kill in between leaves doubled rows, which the next reading drops."""
        self.flush()
        old = segments(self.folder)
        if len(old) > 1:
            self._write(pa.Table.from_pylist(self.rows(), schema=self.schema))
            for path in reversed(old):  # newest first: what a kill leaves is a beginning, in order
                path.unlink()

    def _write(self, table: pa.Table) -> None:
        with replacing(self.folder / f"{self._next:08d}.parquet") as aside:
            pq.write_table(table, aside, compression="zstd")
        self._next += 1


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
        for table in (self.epochs, self.trials):
            if len(segments(table.folder)) > MOST_SEGMENTS:
                table.compact()

    def compact(self) -> None:
        self.epochs.compact()
        self.trials.compact()


def segments(folder: Path) -> list[Path]:
    """A table's segment files in the order of writing."""
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdigit())


def read_segments(folder: Path, schema: pa.Schema | None = None) -> list[dict[str, Any]]:
    """All rows of all segments, in the order of writing.

    Raises RecordsError naming the first segment that cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for path in segments(folder):
        try:
            rows += pq.read_table(path, schema=schema, partitioning=None).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise RecordsError(
                f"{path} cannot be read ({str(error).splitlines()[0]}): restore it from a copy, or delete it; "
                "the trials it held are then run again"
            ) from None
    return rows


def write_study(folder: Path, study: Mapping[str, Any]) -> None:
    """Write study.json, complete or not at all."""
    with replacing(folder / "study.json") as aside:
        aside.write_text(json.dumps(study, indent=1, ensure_ascii=False), encoding="utf-8")


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


def _last_per_key(rows: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        kept[tuple(row[name] for name in key)] = row
    return list(kept.values())

"""Records in memory, for tests of many runs that are about the engine and not about its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from study.records.columns import EPOCH_COLUMNS, KEYS, TRIAL_COLUMNS
from study.records.parquet_table import ParquetTable, Records
from study.records.paths import StudyPaths
from tests.study import toy

Rows = dict[tuple[Any, ...], dict[str, Any]]


class MemoryTable(ParquetTable):
    """A table whose flushed `rows` another coordinator of its folder finds, and whose pending ones a kill loses."""

    def __init__(self, folder: Path, columns: Iterable[tuple[str, pa.DataType]], rows: Rows):
        self.key, self._names, self._rows = KEYS[folder.name], [name for name, _ in columns], rows
        self._pending: list[dict[str, Any]] = []

    def flush(self) -> None:
        for row in self._pending:
            self._rows[tuple(row[name] for name in self.key)] = {name: row.get(name) for name in self._names}
        self._pending.clear()

    def read_rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._rows.values()]

    def compact(self) -> None:
        self.flush()


@pytest.fixture
def records_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let coordinators of tests/study/toy.py keep their records in memory, by folder."""
    kept: dict[Path, Rows] = {}

    class MemoryRecords(Records):
        def __init__(self, folder: Path, metrics: Iterable[str], settings: Mapping[str, pa.DataType] | None = None):
            values = [(name, pa.float64()) for name in metrics]
            self.folder, self._settings, paths = folder, settings or {}, StudyPaths(folder)
            trials = [*TRIAL_COLUMNS, *self._settings.items(), *values]
            self.trials = MemoryTable(paths.trials, trials, kept.setdefault(paths.trials, {}))
            self.epochs = MemoryTable(paths.epochs, [*EPOCH_COLUMNS, *values], kept.setdefault(paths.epochs, {}))

    monkeypatch.setattr(toy, "Records", MemoryRecords)

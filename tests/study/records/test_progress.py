"""Totals of epochs that `show` adds up: each epoch once, in its last row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from study.records import progress
from study.records.parquet_table import Records
from study.records.progress import count_cell_confirms, count_failed, count_planned_trials, read_epoch_totals


def test_epochs_recorded_twice_count_once_with_their_last_row(tmp_path: Path) -> None:
    records = Records(tmp_path, {"val/accuracy": "max"})
    for trial, epoch, seconds, minute in (("a", 1, 2.0, 1), ("a", 2, 9.0, 2), ("b", 1, 4.0, 2), ("a", 2, 3.0, 5)):
        recorded = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
        row = {"trial_id": trial, "cell": "c", "phase": "search", "epoch": epoch, "seconds": seconds}
        records.epochs.append(row | {"recorded": recorded, "schedules": "{}"})
        records.epochs.flush()
    totals, times = read_epoch_totals(tmp_path)
    assert sorted(totals, key=lambda row: row["trial_id"]) == [
        {"trial_id": "a", "epochs": 2, "last_epoch": 2, "seconds": 5.0},
        {"trial_id": "b", "epochs": 1, "last_epoch": 1, "seconds": 4.0},
    ]
    assert sorted(times) == [datetime(2026, 1, 1, 0, minute, tzinfo=UTC) for minute in (1, 2, 5)]


def test_sums_are_the_same_from_call_to_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's threads add up in the order in which they end: `show --json` would differ without any change."""
    count, random = 200_000, np.random.default_rng(0)  # several batches of Arrow's, one for each thread
    rows = pa.table({
        "trial_id": ["a"] * count,
        "epoch": np.arange(count, dtype=np.int32),
        "seconds": random.lognormal(0, 8, count),
        "recorded": pa.array(np.arange(count), pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    monkeypatch.setattr(progress, "read_parquet_table", lambda *_: rows)
    threads = pa.cpu_count()
    pa.set_cpu_count(4)
    try:
        sums = {read_epoch_totals(tmp_path)[0][0]["seconds"] for _ in range(5)}
    finally:
        pa.set_cpu_count(threads)
    assert len(sums) == 1


def test_failures_of_all_points_of_a_front_count() -> None:
    row = {"cell": "net / KD", "phase": "confirm", "number": 0, "state": "COMPLETE", "point": 0}
    failed = row | {"point": 1, "state": "FAILED"}
    assert count_failed([row, failed, failed | {"number": 1}, failed | {"phase": "prepare"}]) == 2
    assert count_failed([row, failed, failed | {"state": "COMPLETE"}]) == 0, "its last trial counts"
    assert count_failed([row | {"point": None, "state": "FAILED"}]) == 1


def test_confirm_trials_of_a_front_are_all_points_as_soon_as_these_are_known() -> None:
    cell = {"cell": "net / KD", "trials": 4, "points": 6, "searched": True}
    study = {
        "budget": {"seeds": 3, "trials": 4},
        "cells": [cell, {"cell": "net / none", "trials": 0, "searched": False}],
    }
    started = [{"cell": "net / KD", "phase": "confirm", "number": 0, "point": point} for point in (0, 1)]
    assert count_cell_confirms(study, cell, []) == count_cell_confirms(study, cell, started) == 6 * 3
    started += [started[0] | {"number": 1}]
    assert count_cell_confirms(study, cell, started) == 2 * 3
    assert count_cell_confirms(study | {"finished": True}, cell, started[:2]) == 2 * 3
    search = started[0] | {"phase": "search", "number": 3}
    assert count_planned_trials(study, [search]) == 4 + 6 * 3 + 3
    assert count_planned_trials(study, [search, *started]) == 4 + 2 * 3 + 3

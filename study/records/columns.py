"""Parquet schema of a study: columns with their types, and the keys of both tables. docs/records.md explains them."""

from __future__ import annotations

import pyarrow as pa

from study.records.paths import EPOCHS, TRIALS

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

KEYS = {TRIALS: ("trial_id",), EPOCHS: ("trial_id", "epoch")}
"""The columns that identify a row, by table."""

"""Parquet schema of a study: columns with their types, and the keys of both tables. docs/records.md explains them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from study.records.paths import EPOCHS, TRIALS
from study.space.domains import Choice, Domain, Integer, find_domains

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
    ("member", pa.int32()),
    ("start_epoch", pa.int32()),
    ("end_epoch", pa.int32()),
    ("parent", pa.string()),
    ("point", pa.int32()),
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

SETTING_PREFIX = "params."
"""Start of the names of columns in trials/ that hold one searched setting each."""

KEYS = {TRIALS: ("trial_id",), EPOCHS: ("trial_id", "epoch")}
"""The columns that identify a row, by table."""


def find_setting_columns(spaces: Iterable[Any]) -> dict[str, pa.DataType]:
    """Return the columns of the settings that any of these search spaces searches, with their types.

    A setting that is a whole number in one space and a real one in another is real; a name in any makes it a string.
    """
    found: dict[str, pa.DataType] = {}
    for name, domain in (named for space in spaces for named in find_domains(space)):
        kind = _get_type(domain)
        before = found.setdefault(SETTING_PREFIX + name, kind)
        if before != kind:
            found[SETTING_PREFIX + name] = pa.string() if pa.string() in (before, kind) else pa.float64()
    return found


def _get_type(domain: Domain) -> pa.DataType:
    labels = domain.labels if isinstance(domain, Choice) else (domain.low, domain.high)
    if any(isinstance(label, bool) or not isinstance(label, int | float) for label in labels):
        return pa.string()
    whole = isinstance(domain, Integer) or all(isinstance(label, int) for label in labels)
    return pa.int64() if whole and isinstance(domain, Integer | Choice) else pa.float64()

"""The table of failed trials."""

from __future__ import annotations

from reports.format.table import Table
from reports.load import StudyRecords


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of failed trials, one row per trial with its reason; without rows if none failed."""
    failed = records.trials[records.trials["state"] == "FAILED"]
    rows = [
        (row.trial_id, row.cell, row.phase, row.number, row.seed, row.epochs_done, row.reason or "–")
        for row in failed.itertuples()
    ]
    return [
        Table(
            name="failures",
            caption="Failed trials",
            columns=("id", "cell", "phase", "number", "seed", "epochs done", "reason"),
            align="lllrrrl",
            rows=tuple(tuple(map(str, row)) for row in rows),
        )
    ]

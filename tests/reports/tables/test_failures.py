from __future__ import annotations

from pathlib import Path

from reports.load import load_study
from reports.tables import failures


def test_failures_show_every_failed_trial_with_its_reason(study: Path) -> None:
    rows = failures.make_tables(load_study(study))[0].rows
    assert [(row[2], row[3], row[-1]) for row in rows] == [
        ("search", "4", "the loss is not finite in epoch 3"),
        ("search", "11", "the loss is not finite in epoch 3"),
    ]

"""All test metrics: the table of a student's arms, and metrics.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.build import write_tables
from reports.load import load_study
from reports.tables.per_class import make_metric_tables
from tests.reports.fake_study import DKD, METRICS, Writer

MAE = {"direction": "min", "unit": "", "digits": 1, "label": "MAE"}


@pytest.fixture
def several(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study that measures accuracy and MAE."""
    monkeypatch.setattr("tests.reports.fake_study.METRICS", {**METRICS, "test/mae": MAE})
    writer.study["metrics"] = {**METRICS, "test/mae": MAE, "test/unmeasured": "max"}
    for row in writer.fill().trials:
        if row["phase"] == "confirm":
            row["test/mae"] = 10.0 + row["number"]
    writer.study["teacher"]["metrics"] = {"test/accuracy": 0.9699, "test/mae": 8.0}
    return writer.write()


def test_table_has_all_metrics_and_the_teacher_first(several: Path) -> None:
    (table,) = make_metric_tables(load_study(several))
    assert table.columns == ("arm", "test accuracy, %", "test MAE")
    assert table.rows[0] == ("teacher: resnet20", "96.99", "8.0")
    assert table.rows[2] == ("DKD", "94.21 ± 0.18", "13.5 ± 2.0")
    assert table.kinds[:2] == ("reference", "")


def test_a_single_metric_needs_no_table(study: Path) -> None:
    assert make_metric_tables(load_study(study)) == []


def test_metrics_csv_holds_unrounded_numbers(several: Path) -> None:
    write_tables(load_study(several))
    rows = pd.read_csv(several / "tables" / "metrics.csv").set_index(["arm", "metric"])
    assert rows.loc[("DKD", "test/accuracy"), "mean"] == pytest.approx(np.mean(DKD), abs=1e-12)
    assert rows.loc[("DKD", "test/mae"), ["seeds", "mean"]].tolist() == [8, 13.5]
    assert rows.loc[("teacher: resnet20", "test/mae"), "mean"] == 8.0
    assert np.isnan(rows.loc[("teacher: resnet20", "test/mae"), "mean_low"])
    assert len(rows) == 8

"""Scores by class: each arm's mean beside the teacher's, in percent, and nothing where none are recorded."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reports.build import build
from reports.load import load_study
from reports.tables.per_class import make_tables
from tests.reports.fake_study import Writer

SKIN, HAIR = "test/class_accuracy_skin", "test/class_accuracy_hair"


@pytest.fixture
def scored(writer: Writer):
    """A study with two classes: skin scores as the test does, hair a tenth less; of a third nothing was measured."""
    folder = writer.fill().write()
    for path in (folder / "trials").glob("*.parquet"):
        table = pq.read_table(path)
        test = table["test/accuracy"].to_numpy(zero_copy_only=False)
        table = table.append_column(SKIN, pa.array(test)).append_column(HAIR, pa.array(test - 0.1))
        pq.write_table(table.append_column("test/class_accuracy_hat", pa.array(np.full(len(test), np.nan))), path)
    study = json.loads((folder / "study.json").read_text())
    study["metrics"] |= {SKIN: "max", HAIR: "max", "test/class_accuracy_hat": "max"}
    study["teacher"]["metrics"] |= {SKIN: 0.987}
    (folder / "study.json").write_text(json.dumps(study))
    return folder


def test_each_class_has_the_mean_of_each_arm_in_percent(scored):
    records = load_study(scored)
    (table,) = make_tables(records)
    assert table.columns == ("class", "teacher", "none", "DKD", "DKD + LP searched")
    assert [row[0] for row in table.rows] == ["skin", "hair"]
    assert table.rows[0][1] == "98.70"
    assert table.rows[1][1] == "–"
    confirmed = records.confirmed
    for position, arm in enumerate(table.columns[2:], 2):
        mean = 100 * confirmed.loc[confirmed["arm"] == arm, "test/accuracy"].mean()
        assert table.rows[0][position].startswith(f"{mean:.2f} ± ")
        assert table.rows[1][position].startswith(f"{mean - 10:.2f} ± ")


def test_page_and_tables_have_the_classes(scored):
    assert 'id="classes"' in build(scored).read_text(encoding="utf-8")
    assert (scored / "tables" / "classes-resnet8.csv").read_text().startswith("class,teacher,none")


def test_study_without_scores_by_class_has_no_such_table(reported):
    assert make_tables(load_study(reported)) == []
    assert 'id="classes"' not in (reported / "report.html").read_text(encoding="utf-8")

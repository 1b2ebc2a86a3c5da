"""Table and figure of an ablation's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.analysis.ablation import measure_path
from reports.figures.ablation import draw_path
from reports.load import StudyRecords, load_study
from reports.tables.ablation import make_tables
from tests.reports.fake_study import DKD, NONE, SEEDS, Writer

ARMS = {"published": NONE, "a 1 → 2": DKD, "b 1 → 2": [value - 0.01 for value in DKD]}


@pytest.fixture
def path(writer: Writer) -> Writer:
    """A study of two steps, whose scores on validation are those on test minus 0.1."""
    writer.arms, writer.searched = ARMS, set()
    writer.versus = {"published": [], "a 1 → 2": ["published"], "b 1 → 2": ["a 1 → 2"]}
    for row in writer.fill().trials:
        if row["phase"] == "confirm":
            row["val/accuracy"] = row["test/accuracy"] - 0.1
    return writer


def load(path: Writer) -> StudyRecords:
    return load_study(path.write())


def test_steps_are_paired_changes_on_validation(path: Writer) -> None:
    first, second, third = measure_path(load(path), "resnet8")
    assert first.change is None
    assert first.score.mean == pytest.approx(sum(NONE) / SEEDS - 0.1)
    assert second.change is not None
    assert second.change.difference == pytest.approx((sum(DKD) - sum(NONE)) / SEEDS)
    assert third.change is not None
    assert third.change.difference == pytest.approx(-0.01)


def test_table_has_a_row_for_each_step(path: Writer) -> None:
    (table,) = make_tables(load(path))
    assert table.columns[2:4] == ("validation accuracy, %", "change, points")
    assert table.rows[0] == ("published", "8", "81.16", "–", "–", "–")
    assert table.rows[1][:4] == ("a 1 → 2", "8", "84.21", "+3.05")
    assert table.rows[2][:4] == ("b 1 → 2", "8", "83.21", "−1.00")
    assert table.rows[2][5] == "+2.05"


def test_figure_has_a_mark_and_a_name_for_each_step(path: Writer) -> None:
    drawn = draw_path(load(path), "resnet8")
    assert drawn is not None
    (marks,) = drawn.figure.data
    assert list(marks.x) == pytest.approx([81.1550, 84.2100, 83.2100], abs=0.01)
    assert list(marks.y) == [2, 1, 0]
    texts = [one.text for one in drawn.figure.layout.annotations]
    assert texts == ["published", "a 1 → 2: +3.05", "b 1 → 2: −1.00"]


def test_arms_without_scores_on_validation_have_no_path(study: Path) -> None:
    records = load_study(study)  # its three arms are compared one with the other, but confirmed on train+val
    assert measure_path(records, "resnet8") == ()
    assert make_tables(records) == []
    assert draw_path(records, "resnet8") is None


def test_arms_compared_with_one_baseline_are_no_path(path: Writer) -> None:
    path.versus["b 1 → 2"] = ["published"]
    assert measure_path(load(path), "resnet8") == ()

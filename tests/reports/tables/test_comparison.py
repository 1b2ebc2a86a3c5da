from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.analysis.comparison import Comparison, compare_arms
from reports.load import load_study
from reports.tables.comparison import make_comparison_table
from reports.text import summary
from tests.reports.fake_study import DKD, Writer


def only(folder: Path) -> Comparison:
    (comparison,) = compare_arms(load_study(folder))
    return comparison


def test_comparison_table_shows_percent_and_points(study: Path) -> None:
    table = make_comparison_table(only(study))
    cells = dict(zip(table.columns, table.rows[2], strict=True))
    half = stats.t.ppf(0.975, 7) * np.std(DKD, ddof=1) / np.sqrt(8)
    assert table.rows[0][:3] == ("teacher: resnet20", "1", "96.99")
    assert cells["test accuracy, %"] == f"{100 * np.mean(DKD):.2f} ± {100 * half:.2f}"
    assert cells["difference, points"].startswith("+3.05 [")
    assert cells["p"] == "0.016"
    assert "published" not in table.columns


def test_each_student_has_its_own_table(writer: Writer) -> None:
    writer.students = ["resnet8", "resnet20"]
    comparisons = compare_arms(load_study(writer.fill().write()))
    assert [comparison.student for comparison in comparisons] == ["resnet8", "resnet20"]
    assert all(len(comparison.contrasts) == comparison.tests == 2 for comparison in comparisons)


def test_published_figures_are_shown_with_measured_ones_under_the_papers_protocol(writer: Writer) -> None:
    writer.study["protocol"] = "P1"
    folder = writer.fill().write()
    searched = only(folder).rows[2]
    assert searched.published is not None
    assert searched.published.value == pytest.approx(0.0064)
    table = make_comparison_table(only(folder))
    assert [row[-1] for row in table.rows] == ["–", "–", "–", "+0.64"]
    assert any("difference to dkd published in P1" in note for note in table.notes)
    assert summary.explain_unpublished(load_study(folder)) is None


@pytest.mark.parametrize("complete", [True, False])
def test_published_figures_are_shown_only_for_complete_data(writer: Writer, complete: bool) -> None:
    writer.study["protocol"] = "P4"
    writer.study["inputs"] = {"data": {"name": "ShanghaiTech A", "complete": complete}}
    writer.study["teacher"] = {"name": "m_sfanet", "metrics": {}}
    writer.study |= {"test_metric": "test/mae", "metrics": {"test/mae": "min"}}
    writer.students = ["mcnn"]
    writer.published = {"DKD": "kd alpha=0.1"}
    records = load_study(writer.fill().write())
    (comparison,) = compare_arms(records)
    assert comparison.teacher is not None
    figures = [figure.value for figure in (comparison.teacher.published, comparison.rows[1].published) if figure]
    assert figures == ([57.55, 90.86] if complete else [])
    line, why = summary.describe_data(records), summary.explain_unpublished(records)
    if complete:
        assert "Data and protocol of P4, as far as the paper gives it; the assumptions name what" in line
        assert why is None
    else:
        assert line.endswith(
            "Not P4's data: images are missing or added; published figures are not shown next to measured ones."
        )
        assert why is not None
        assert "runs on ShanghaiTech A (images are missing or added), not under P4's protocol" in why


def test_a_published_difference_to_another_arm_is_not_shown(writer: Writer) -> None:
    writer.study["protocol"] = "P1"
    writer.versus["DKD + LP searched"] = ["none"]
    assert only(writer.fill().write()).rows[2].published is None


def test_best_validation_epoch_is_shown_next_to_the_last_one(writer: Writer) -> None:
    folder = writer.fill().write()
    rows = pd.read_parquet(folder / "trials")
    rows["test_at_best_val/accuracy"] = rows["test/accuracy"] + 0.01
    rows.to_parquet(folder / "trials" / "part-00001.parquet")
    comparison = only(folder)
    table = make_comparison_table(comparison)
    assert table.rows[2][table.columns.index("at best validation epoch")].startswith("95.21")
    assert comparison.rows[1].mean is not None
    assert comparison.rows[1].mean.mean == pytest.approx(np.mean(DKD))

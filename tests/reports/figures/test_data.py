"""The data of figures as CSV: each point as drawn, and a table of its own where places say little."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest

from reports.contents import list_figures, make_sections
from reports.figures.data import to_csv
from reports.figures.style import ReportFigure, escape_plotly, new_figure
from reports.format.table import make_file_stems
from reports.load import load_study
from tests.reports.fake_study import TRIALS


def test_points_are_rows_without_gaps_and_escapes() -> None:
    figure = new_figure("epoch", escape_plotly("accuracy <of> val, %"))
    figure.add_scatter(x=[1, 2, None, 3], y=[0.5, None, None, 0.75], name=escape_plotly("KD & T"), customdata=[7] * 4)
    assert to_csv(ReportFigure("name", "title", "", figure)).splitlines() == [
        'series,epoch,"accuracy <of> val, %",label',
        "KD & T,1,0.5,7",
        "KD & T,3,0.75,7",
    ]


def test_error_bars_are_columns_low_and_high() -> None:
    figure = new_figure("", "")
    figure.add_scatter(x=[2.0], y=["arm"], name="mean", error_x={"array": [0.5], "arrayminus": [0.25]})
    figure.add_scatter(x=[1.0], y=[4.0], name="other", error_y={"array": [0.5]})
    assert to_csv(ReportFigure("name", "title", "", figure)).splitlines() == [
        "series,x,y,low,high",
        "mean,2.0,arm,1.75,2.5",
        "other,1.0,4.0,3.5,4.5",
    ]


def test_every_figure_links_to_a_file_with_its_points(reported: Path) -> None:
    page = (reported / "report.html").read_text(encoding="utf-8")
    figures = list_figures(make_sections(load_study(reported), []))
    stems = make_file_stems([one.title for one in figures])
    for one in figures:
        data = pd.read_csv(reported / "figures" / f"{stems[one.title]}.csv")
        assert len(data), one.title
        assert page.count(f'href="figures/{quote(stems[one.title])}.csv"') == 1
        if one.data is None:
            assert data["series"].notna().all(), one.title
    assert len(list((reported / "figures").iterdir())) == len(figures) > 10


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("parallel", ["number", "state", "logits.prune.end", "score"]),
        ("timeline", ["trial_id", "cell", "kind", "worker", "begin", "end"]),
    ],
)
def test_figures_across_scales_have_a_table_of_values(study: Path, name: str, columns: list[str]) -> None:
    (one,) = (one for one in list_figures(make_sections(load_study(study), [])) if one.name == name)
    assert one.data is not None
    assert set(columns) <= set(one.data.columns)
    assert len(one.data) >= TRIALS - 2

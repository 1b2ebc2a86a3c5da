"""Files of figures: each point as drawn in CSV, a table of its own where places say little, and images."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from reports.build import main
from reports.contents import list_figures, make_sections
from reports.figures import files
from reports.figures.files import make_print_copy, to_csv, write_images
from reports.figures.style import ReportFigure, escape_plotly, new_figure
from reports.format.table import make_file_stem, make_file_stems
from reports.load import load_study
from study.errors import InputError
from tests.reports.fake_study import TRIALS, Writer
from tests.reports.page.browser import CHROMIUM

DRAWS = importlib.util.find_spec("kaleido") is not None and CHROMIUM is not None


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


def test_figures_without_kaleido_end_with_one_line(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    result = CliRunner().invoke(main, [str(study), "--figures", "svg"])
    assert result.exit_code == 2
    assert result.output == 'error: figures as svg need kaleido: pip install -e ".[figures]"\n'
    assert (study / "report.html").is_file()


def test_figures_without_a_browser_end_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("\n  Kaleido requires Google Chrome to be installed.\n\nEither download …")

    monkeypatch.setitem(sys.modules, "kaleido", ModuleType("kaleido"))
    monkeypatch.setattr(files.plotly.io, "write_images", missing)
    with pytest.raises(InputError, match="need Chrome or Chromium, which kaleido could not start") as raised:
        write_images([ReportFigure("name", "title", "", new_figure("x", "y"))], tmp_path / "figures", "png")
    assert "\n" not in str(raised.value)


def test_figures_of_another_kind_are_refused(study: Path) -> None:
    result = CliRunner().invoke(main, [str(study), "--figures", "gif"])
    assert result.exit_code == 2
    assert "svg" in result.output


def test_figures_of_a_page_have_titles_of_their_own(writer: Writer) -> None:
    writer.students = ["resnet8", "resnet20"]
    drawn = list_figures(make_sections(load_study(writer.fill().write()), []))
    stems = [make_file_stem(one.title) for one in drawn]
    assert len(set(stems)) == len(stems) > 20


def test_figure_on_paper_is_a_copy_with_a_ground_and_a_width() -> None:
    one = ReportFigure("name", "title", "", new_figure("x", "y", height=300), small=True)
    figure = make_print_copy(one)
    assert (figure.layout.paper_bgcolor, figure.layout.width, figure.layout.height) == (
        "white",
        files.SMALL_PIXELS,
        300,
    )
    assert figure.layout.xaxis.gridcolor == files.GRID
    assert one.figure.layout.width is None


@pytest.mark.slow
@pytest.mark.skipif(not DRAWS, reason="needs kaleido and Chromium")
def test_figures_are_written_as_svg_and_png(study: Path) -> None:
    result = CliRunner().invoke(main, [str(study), "--figures", "svg"])
    assert (result.exit_code, result.output.strip()) == (0, str(study / "report.html"))
    drawn = list_figures(make_sections(load_study(study), []))
    paths = sorted((study / "figures").glob("*.svg"))
    assert {path.name for path in paths} == {f"{make_file_stem(one.title)}.svg" for one in drawn}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert re.search(r'class="(js-line|point)', text), path.name
        assert re.search(rf'<svg[^>]* width="({files.WIDE_PIXELS}|{files.SMALL_PIXELS})"', text), path.name
        assert not re.search(r'(href|src)="http', text)
    (picture,) = write_images(drawn[:1], study / "figures", "png")
    assert Image.open(picture).width == 2 * files.WIDE_PIXELS

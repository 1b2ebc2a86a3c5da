from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from PIL import Image

from reports.build import main
from reports.contents import list_figures, make_sections
from reports.figures import files as images
from reports.figures.files import make_print_copy, write_images
from reports.figures.style import ReportFigure, new_figure
from reports.format.table import make_file_stem
from reports.load import load_study
from study.errors import InputError
from tests.reports.fake_study import Writer
from tests.reports.page.browser import CHROMIUM

DRAWS = importlib.util.find_spec("kaleido") is not None and CHROMIUM is not None


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
    monkeypatch.setattr(images.plotly.io, "write_images", missing)
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
        images.SMALL_PIXELS,
        300,
    )
    assert figure.layout.xaxis.gridcolor == images.GRID
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
        assert re.search(rf'<svg[^>]* width="({images.WIDE_PIXELS}|{images.SMALL_PIXELS})"', text), path.name
        assert not re.search(r'(href|src)="http', text)
    (picture,) = write_images(drawn[:1], study / "figures", "png")
    assert Image.open(picture).width == 2 * images.WIDE_PIXELS

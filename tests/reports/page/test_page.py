from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from reports.build import build, main
from reports.page import render
from reports.page.render import allow_breaks
from tests.reports.fake_study import Writer

HOSTILE = """<script>alert(1)</script> "quoted" 'single' & </title> <!-- %{y} ünïcödé 数 🙂 """ + "x" * 230
ELEMENTS_THAT_LOAD = {"link", "iframe", "object", "embed", "img", "video", "audio", "base", "form"}


class Page(HTMLParser):
    """A page's elements, the text outside script and style, and its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def page_of(folder: Path) -> Page:
    return Page(build(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page((reported / "report.html").read_text(encoding="utf-8"))


def test_page_shows_the_answer_and_every_section(page: Page) -> None:
    assert "Not the data and protocol of any paper" in page.text
    assert "DKD + LP searched against DKD is undecided" in page.text
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {"comparison", "curves", "search", "budget", "settings", "provenance", "space", "failures"} <= ids


def test_page_links_lead_to_sections_that_exist(page: Page, reported: Path) -> None:
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] or "" for tag, attributes in page.elements if tag == "a"]
    targets = [link for link in links if link.startswith("#")]
    assert len(targets) > 5
    assert all((reported / unquote(link)).is_file() for link in links if link not in targets)
    assert all(target.removeprefix("#") in ids for target in targets)


def test_page_loads_nothing_and_holds_plotly_once(page: Page, reported: Path) -> None:
    assert (reported / "report.html").stat().st_size <= 8 * 2**20
    assert not {tag for tag, _ in page.elements} & ELEMENTS_THAT_LOAD
    assert not [attributes for tag, attributes in page.elements if "src" in attributes]
    assert sum("plotly.js v" in script[:200] for script in page.scripts) == 1


def test_page_policy_allows_exactly_its_own_scripts(page: Page) -> None:
    (policy,) = (a["content"] or "" for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    executable = [a for tag, a in page.elements if tag == "script" and "type" not in a]
    assert len(executable) == policy.count("'sha256-") == 3


def test_page_keeps_hostile_text_as_text(page: Page, tmp_path: Path) -> None:
    other = Writer(tmp_path / "hostile")
    arms = list(other.arms)
    other.arms = {HOSTILE if arm == arms[2] else arm: values for arm, values in other.arms.items()}
    other.versus, other.searched = {HOSTILE: "DKD", "DKD": "none"}, {HOSTILE}
    other.study |= {"name": HOSTILE, "question": HOSTILE, "assumptions": [HOSTILE]}
    other.study["study"]["arms"][2]["name"] = HOSTILE
    other.study["space"] = {"path": HOSTILE, "profile": HOSTILE, "source": HOSTILE}
    for row in other.fill().trials:
        row["reason"] = HOSTILE
        row["params"] = row["params"].replace("linear", HOSTILE.replace('"', '\\"'))
    hostile = page_of(other.write())
    # long values are shortened, and with them a name whose dot a line may break behind
    kept, expected = ([tag for tag, _ in shown.elements if tag != "wbr"] for shown in (hostile, page))
    assert kept == expected
    assert hostile.text.count(HOSTILE) > 10
    assert not [script for script in hostile.scripts if "alert(1)</" in script]


@pytest.mark.parametrize("key", ["assumptions", "readings"])  # "readings" in studies of version 0.1
def test_page_prints_the_assumptions_once(writer: Writer, key: str) -> None:
    del writer.study["assumptions"]
    writer.study[key] = ["LP: p < 5 & of all K classes.", "EAT: eight plateaus."]
    writer.study["study"][key] = writer.study[key]
    page = page_of(writer.fill().write())
    settings = page.text.split("Assumptions", 1)[1].split("Provenance", 1)[0]
    assert page.text.count("LP: p < 5 & of all K classes.") == 1
    assert "LP: p < 5 & of all K classes." in settings
    assert "EAT: eight plateaus." in settings


@pytest.mark.parametrize("assumptions", [[], None])
def test_page_of_a_study_without_assumptions_has_no_such_heading(writer: Writer, assumptions: list[str] | None) -> None:
    writer.study["assumptions"] = assumptions
    assert "Assumptions" not in page_of(writer.fill().write()).text


def test_long_names_break_behind_dots_and_numbers_do_not() -> None:
    assert allow_breaks("arms.DKD.loss, recipe.learning_rate.start 0.5 & <b>") == (
        "arms.<wbr>DKD.<wbr>loss, recipe.<wbr>learning_rate.<wbr>start 0.5 &amp; &lt;b&gt;"
    )


def test_page_of_an_unfinished_study_says_so(writer: Writer) -> None:
    writer.study |= {"finished": False, "teacher": None}
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] != "confirm" or row["number"] < 3]
    text = page_of(writer.write()).text
    assert "Unfinished study" in text
    assert "9 of 24 confirm runs" in text


def test_page_warns_that_seeds_cannot_decide(writer: Writer) -> None:
    writer.study["budget"] = {"trials": 16, "epochs": 8, "seeds": 4}
    text = page_of(writer.fill().write()).text
    assert "4 seeds cannot decide" in text
    assert "at least 7 seeds" in text


def test_page_without_rows(writer: Writer) -> None:
    writer.study["finished"] = False
    text = page_of(writer.write()).text
    assert "0 of 24 confirm runs" in text
    assert "no result" in text


def test_page_without_confirm_rows(writer: Writer) -> None:
    writer.fill()
    writer.trials = [row for row in writer.trials if row["phase"] == "search"]
    page = page_of(writer.write())
    assert "search history" in page.text
    assert not [a for _, a in page.elements if a.get("id") == "curves"]


def test_page_of_only_failures(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        row.update({"state": "FAILED", "reason": "out of memory", "test/accuracy": None, "val/accuracy": None})
    page = page_of(writer.write())
    assert page.text.count("out of memory") == len(writer.trials)
    assert f"{len(writer.trials)} trials failed" in page.text


def test_page_names_a_damaged_segment(study: Path) -> None:
    (study / "epochs" / "00000002.parquet").write_bytes(b"PAR1 cut")
    assert "epochs/00000002.parquet cannot be read" in page_of(study).text


def test_page_of_an_empty_study_json(writer: Writer) -> None:
    folder = writer.fill().write()
    (folder / "study.json").write_text("{}")
    assert "data that study.json does not name" in page_of(folder).text


def test_page_replaces_the_previous_one_and_leaves_no_temporary_files(study: Path) -> None:
    build(study)
    build(study)
    assert {path.name for path in study.iterdir()} == {
        "study.json",
        "trials",
        "epochs",
        "tables",
        "figures",
        "report.html",
    }


def test_command_prints_the_pages_path(study: Path) -> None:
    result = CliRunner().invoke(main, [str(study)])
    assert (result.exit_code, result.output.strip()) == (0, str(study / "report.html"))


@pytest.mark.parametrize("make", ["missing", "empty", "newer"])
def test_command_ends_with_one_line_on_bad_input(writer: Writer, tmp_path: Path, make: str) -> None:
    folder = tmp_path / "fake"
    if make == "empty":
        folder.mkdir()
    if make == "newer":
        writer.study["schema"] = 3
        writer.write()
    result = CliRunner().invoke(main, [str(folder)])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert result.output.startswith("error: ")


def test_command_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "reports.build", "--help"], capture_output=True, text=True, check=True)
    assert "report.html" in done.stdout


def test_column_of_long_text_stays_wide_on_a_phone(writer: Writer) -> None:
    writer.fill()
    for row in writer.trials:
        if row["state"] == "FAILED":
            row["reason"] = "a reason of more than forty letters, " * 3
    cells = [attributes["class"] for tag, attributes in page_of(writer.write()).elements if tag == "td"]
    assert "l long" in cells
    assert "r long" not in cells


def test_greyed_text_keeps_its_contrast() -> None:
    # WCAG 2.2, success criterion 1.4.3: at least 4.5 : 1
    css = Path(render.__file__).with_name("page.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", css, flags=re.S)
    assert len(themes) == 3
    assert re.search(r"tr\.greyed td \{ color: var\(--soft\); background: var\(--panel\)", css)
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #(\w+)", theme))
        light, dark = sorted((luminance(colours[name]) for name in ("soft", "panel")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour in hexadecimal, as WCAG 2.2 defines it."""
    full = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

"""The report's lists: a table or a section of one's own takes one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import contents
from reports.build import build
from reports.contents import SECTIONS, TABLES, ReportTable, Section
from reports.format.table import Table
from reports.load import StudyRecords
from reports.page.blocks import Paragraph


def seed_table(records: StudyRecords) -> list[Table]:
    seeds = sorted(set(records.confirmed["seed"]))
    return [Table("seeds", "Confirm seeds of this study", ("seed",), "r", tuple((str(seed),) for seed in seeds))]


def test_table_is_written_and_shown_in_its_section(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "TABLES", (*TABLES, ReportTable(seed_table, section="budget")))
    page = build(study).read_text(encoding="utf-8")
    assert {path.suffix for path in (study / "tables").glob("seeds.*")} == {".csv", ".md", ".tex"}
    budget = page.split('<section id="budget">')[1].split("</section>")[0]
    assert budget.index("Trials, epochs and time per cell") < budget.index("<h3>Confirm seeds of this study</h3>")


def test_table_without_a_section_is_written_only(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "TABLES", (*TABLES, ReportTable(seed_table)))
    assert "Confirm seeds of this study" not in build(study).read_text(encoding="utf-8")
    assert (study / "tables" / "seeds.csv").is_file()


def test_table_of_an_unknown_section_is_refused(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "TABLES", (*TABLES, ReportTable(seed_table, section="budgets")))
    with pytest.raises(ValueError, match="a section 'budgets'; SECTIONS has budget, classes, "):
        build(study)


def test_section_appears_on_the_page_and_in_its_contents(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Section("remarks", "Remarks", lambda records: [Paragraph(f"On {records.name} <b>")])
    monkeypatch.setattr(contents, "SECTIONS", (*SECTIONS, own))
    page = build(study).read_text(encoding="utf-8")
    assert '<a href="#remarks">Remarks</a>' in page
    assert "<p>On fake &lt;b&gt;</p>" in page.split('<section id="remarks">')[1]


def test_section_with_nothing_to_show_is_left_out(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SECTIONS", (*SECTIONS, Section("remarks", "Remarks")))
    assert "Remarks" not in build(study).read_text(encoding="utf-8")


def test_every_table_of_the_report_is_written_once(reported: Path) -> None:
    names = {path.name for path in (reported / "tables").iterdir()}
    assert {"comparison.csv", "comparison.md", "budget.csv", "budget.tex", "failures.md"} <= names

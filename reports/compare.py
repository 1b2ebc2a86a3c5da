"""The command `python -m reports.compare A B …`: compare two or more studies on one self-contained page.

It compares cells that studies share, with the statistics of a single study's report, and lists every difference in
settings, data, versions and budget. The page runs no script. It belongs to no single study, so it is written to the
current folder.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from reports.analysis.cross_study import StudentComparison, compare_studies, pool_students
from reports.figures.cross_study import DotPlot, make_dot_plot
from reports.format.table import Table, to_text
from reports.format.values import format_value, join_words, shorten
from reports.load import StudyRecords, load_study
from reports.page.render import render_template, replace_file
from reports.tables.cross_study import make_cells_table, make_labels, summarize_student
from reports.tables.study_differences import (
    make_budget_table,
    make_inputs_table,
    make_settings_table,
    make_studies_table,
    make_versions_table,
)
from reports.text.summary import list_problems
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.storage.remote import find_study

TEST_IS_READ_ONCE = (
    "These are test results. To choose a setting by them is selection on test data: its result would then look better "
    "than it is on new data. Choose settings by a search within one study."
)


@dataclass(frozen=True)
class DifferenceSection:
    """One kind of differences: its table, and the sentence for an empty one."""

    id: str
    table: Table
    if_empty: str


@dataclass(frozen=True)
class StudiesReport:
    """Content of the page and of the terminal's output."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    students: tuple[tuple[StudentComparison, Table, DotPlot | None], ...]
    answers: tuple[str, ...]
    differences: str
    notices: tuple[str, ...]
    unshared: tuple[str, ...]
    studies: Table
    sections: tuple[DifferenceSection, ...]


def make_report(studies: Sequence[StudyRecords]) -> StudiesReport:
    """Return the comparison of these studies, in the order given."""
    labels = make_labels([records.name for records in studies])
    compared, sections = compare_studies(studies), _make_sections(studies, labels)
    pooled = pool_students(compared)
    compared = (*compared, pooled) if pooled else compared
    return StudiesReport(
        names=tuple(records.name for records in studies),
        labels=labels,
        students=tuple((one, make_cells_table(one, labels), make_dot_plot(one, labels)) for one in compared),
        answers=tuple(summarize_student(one, labels) for one in compared)
        or ("No two of these studies have a cell in common.",),
        differences=_summarise_differences(studies, sections),
        notices=tuple(
            f"{label}: {line}"
            for label, records in zip(labels, studies, strict=True)
            for line in list_problems(records)
        ),
        unshared=tuple(_list_unshared_cells(studies, labels)),
        studies=make_studies_table(studies, labels),
        sections=sections,
    )


def render_page(found: StudiesReport) -> str:
    """Return the comparison as HTML."""
    return render_template("compare.html", {"found": found, "caution": TEST_IS_READ_ONCE})


def render_text(found: StudiesReport, width: int = 110) -> str:
    """Return the comparison as text: the tables of cells, then the differences, at most `width` columns wide."""
    shown = [table for _, table, _ in found.students]
    shown += [section.table for section in found.sections if section.table.rows]
    notes = [[textwrap.fill(note, width) for note in table.notes] for table in shown]
    blocks = [
        "\n".join((shorten(table.caption, width), "", to_text(table, width), *lines))
        for table, lines in zip(shown, notes, strict=True)
    ]
    lines = [*found.answers, found.differences, *found.unshared, *found.notices, TEST_IS_READ_ONCE]
    return "\n\n".join([*blocks, "\n".join(textwrap.fill(line, width) for line in lines)]) + "\n"


def _make_sections(studies: Sequence[StudyRecords], labels: Sequence[str]) -> tuple[DifferenceSection, ...]:
    described = all(records.section("study") for records in studies)
    none = "No setting differs." if described else "Not every study.json describes its study."
    return (
        DifferenceSection("settings", make_settings_table(studies, labels), none),
        DifferenceSection("inputs", make_inputs_table(studies, labels), "Data and teacher are the same."),
        DifferenceSection("versions", make_versions_table(studies, labels), "Code and machine are the same."),
        DifferenceSection("budget", make_budget_table(studies, labels), ""),
    )


def _summarise_differences(studies: Sequence[StudyRecords], sections: Sequence[DifferenceSection]) -> str:
    """Return one line that names everything in which the studies differ."""
    facts = [(name, [records.section("budget").get(name) for records in studies]) for name in ("trials", "epochs")]
    facts.append(("study seed", [records.study.get("seed") for records in studies]))
    parts = [
        f"{word} {join_words([format_value(v) for v in values])}"
        for word, values in facts
        if len(set(map(str, values))) > 1
    ]
    for section, word in zip(sections, ("settings", "data and teacher", "code, versions and machine"), strict=False):
        if count := len(section.table.rows):
            parts.append(f"{word} ({count} {'entry' if count == 1 else 'entries'} below)")
    return f"What differs: {'; '.join(parts) or 'nothing that is recorded'}."


def _list_unshared_cells(studies: Sequence[StudyRecords], labels: Sequence[str]) -> list[str]:
    """Return one line per study with cells that no other study has."""
    cells = [[(cell.student, cell.arm) for cell in records.cells] for records in studies]
    lines = []
    for index, label in enumerate(labels):
        others = {cell for other, found in enumerate(cells) if other != index for cell in found}
        if own := [" / ".join(cell) for cell in cells[index] if cell not in others]:
            lines.append(f"Only in {label}: {'; '.join(own)}.")
    return lines


def _load_studies(names: Sequence[str], storage: str) -> list[StudyRecords]:
    folders = [find_study(name, storage) for name in names]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"{', '.join(names)}: the same study is given twice; name two or more different studies")
    return [load_study(folder) for folder in folders]


@click.command(epilog="Example: python -m reports.compare lp_cifar lp_long --out lp.html")
@click.argument("studies", nargs=-1, required=True, metavar="STUDY STUDY...")
@click.option("--storage-path", type=click.Path(), default="runs", show_default=True,
              help="The storage of studies given by name: a folder, or s3://BUCKET/PREFIX.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("compare.html"), show_default=True,
              help="The page to write.")  # fmt: skip
def main(studies: tuple[str, ...], storage_path: str, out: Path) -> None:
    """Compare two or more studies: print their tables and write a page.

    Each STUDY is a name below the storage path, a path, or s3://BUCKET/PREFIX/NAME. Each cell is compared with the
    first study that has it.
    """
    try:
        if len(studies) < 2:
            raise InputError(f"only {studies[0]} is given: name two or more studies")
        found = make_report(_load_studies(studies, storage_path))
        replace_file(out, render_page(found))
    except (InputError, RecordsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(render_text(found))
    print(f"page: {out}")


if __name__ == "__main__":
    main()

"""The structure of a paper's comparison table: a module for each paper has its tables, paper_tables.py fills them in.

Rows, columns and their order are the papers'; headings are in this project's words. The figures are in
reports/analysis/published.csv.

A row and a column each specify a part of the cell where they cross: net, method or metric. A row or column for each
teacher or student is declared once with that role, and expanded for the nets of the paper or of a study.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from reports.analysis import published
from reports.analysis.published import Published


@dataclass(frozen=True)
class Heading:
    """The heading of a row or column, with its part of the specification of its cells.

    A heading with a role, "teacher" or "student", is repeated for each such net, whose title replaces "{}".
    """

    title: str
    role: str = ""
    model: str = ""
    method: str = ""
    """A method of published.csv, with its setting if the paper reports several: "kd alpha=0.1"."""
    metric: str = ""
    """A metric without its split, or a property of the net: "parameters", "size_mb" (float32 weights, in MB), "macs",
    "latency"."""
    digits: int = 2
    versus: str = ""
    """The method to which the figures are differences; empty for plain figures."""
    arm: str = ""
    """An arm of the study that no paper reports; used instead of the method."""
    ours: bool = False
    """Whether the row is an addition to the paper's table."""
    blank: bool = False
    """Whether nothing belongs into the cell, such as a teacher's figure under a method for students."""
    notes: tuple[str, ...] = ()
    """Known errors and gaps of the paper's figures in this row or column."""


@dataclass(frozen=True)
class Layout:
    """A paper's table; it is shown for studies that measure `metric`."""

    paper: str
    number: int
    caption: str
    metric: str
    head: str
    rows: tuple[Heading, ...]
    columns: tuple[Heading, ...]
    students: tuple[Heading, ...]
    teacher: Heading | None = None
    single_student: bool = False
    """Whether the table is about one student, which of a study's students is the first."""
    further_arms: bool = False
    """Whether arms of the study that no paper reports are added as rows."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, tuple[Heading, ...]]:
        """The paper's nets by role."""
        return {"teacher": (self.teacher,) if self.teacher else (), "student": self.students}


def combine(row: Heading, column: Heading) -> Heading:
    """Return the specification of the cell where `row` and `column` cross."""
    return replace(
        row,
        model=row.model or column.model,
        method=row.method or column.method,
        metric=row.metric or column.metric,
        digits=row.digits if row.metric else column.digits,
        blank=row.method == "teacher" and column.method not in ("", "none"),
    )


def expand_roles(headings: Iterable[Heading], names: dict[str, tuple[Heading, ...]]) -> Iterator[Heading]:
    """Yield the headings, those of a role repeated per net; adjacent ones of a role stay together."""
    for role, group in groupby(headings, key=lambda heading: heading.role):
        neighbours = tuple(group)
        if not role:
            yield from neighbours
        for name in names.get(role, ()):
            for heading in neighbours:
                title = heading.title.replace("{}", name.title, 1)
                yield replace(heading, title=title, model=name.model, notes=(*heading.notes, *name.notes))


def find_figure(layout: Layout, spec: Heading) -> Published | None:
    """Return the paper's figure for a cell, or None unless it reports exactly one."""
    reported = () if spec.ours or spec.blank else published.find_figures(layout.paper, spec.model, spec.method)
    found = [row for row in reported if row.is_of_metric(spec.metric) and (row.versus or "") == spec.versus]
    return found[0] if len(found) == 1 else None


def assign_marks(layout: Layout) -> dict[str, str]:
    """Return the mark of each footnote, "[a]", "[b]", …, in the order of caption, columns, rows, figures."""
    columns, rows = (tuple(expand_roles(headings, layout.names)) for headings in (layout.columns, layout.rows))
    figures = [found for row in rows for column in columns if (found := find_figure(layout, combine(row, column)))]
    texts = [*layout.notes, *(note for heading in (*columns, *rows) for note in heading.notes)]
    texts += [found.note for found in figures if found.note]
    return {text: f"[{letter}]" for text, letter in zip(dict.fromkeys(texts), string.ascii_lowercase, strict=False)}


def add_marks(text: str, notes: tuple[str, ...], marks: dict[str, str]) -> str:
    """Return the text with the marks of its footnotes: "LDT [b][c]"."""
    return " ".join([text, "".join(marks[note] for note in notes)]) if notes else text


def format_heading(layout: Layout, heading: Heading, marks: dict[str, str]) -> str:
    """Return the title with the marks of its footnotes; without marks for a net that is not in the paper."""
    foreign = heading.role and heading.model not in {name.model for name in layout.names[heading.role]}
    return heading.title if foreign else add_marks(heading.title, heading.notes, marks)

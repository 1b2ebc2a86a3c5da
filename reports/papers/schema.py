"""What a paper's comparison table is made of. paper_layouts.py has the papers' own, paper_tables.py fills them.

A row and a column each say a part of what stands where they meet: a net, a method, a metric. Rows or columns that
stand for nets are written once and expanded for the paper's nets, or for a study's.
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
    """A row or a column: its heading, and what it says of the figures along it; the crossing line says the rest.

    With a role it stands for a line per teacher or student, whose name takes the place of "{}" in its title.
    """

    title: str
    role: str = ""
    model: str = ""
    method: str = ""
    """As in published.csv, with its setting where a paper has several: "kd alpha=0.1"."""
    metric: str = ""
    """A metric's bare name, or what a net has: "parameters", "size" (with the bytes of its weights), "macs",
    "latency"."""
    digits: int = 2
    versus: str = ""
    """The method to which figures are differences."""
    arm: str = ""
    """An arm of the study, for one that no paper reports."""
    ours: bool = False
    """Whether it is not in the paper."""
    notes: tuple[str, ...] = ()
    """What is known to be wrong, or open, in the paper's figures along it."""


@dataclass(frozen=True)
class Layout:
    """A paper's table; `metric` is what a study has to measure for the table to be about it."""

    paper: str
    number: int
    caption: str
    metric: str
    head: str
    rows: tuple[Heading, ...]
    columns: tuple[Heading, ...]
    students: tuple[Heading, ...]
    teacher: Heading | None = None
    further_arms: bool = False
    """Whether the study's arms that no paper reports have rows of their own."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, tuple[Heading, ...]]:
        """The paper's nets by role."""
        return {"teacher": (self.teacher,) if self.teacher else (), "student": self.students}


def combine(row: Heading, column: Heading) -> Heading:
    """What stands where a row and a column meet."""
    return replace(
        row,
        model=row.model or column.model,
        method=row.method or column.method,
        metric=row.metric or column.metric,
        digits=row.digits if row.metric else column.digits,
    )


def expand_roles(lines: Iterable[Heading], names: dict[str, tuple[Heading, ...]]) -> Iterator[Heading]:
    """The lines with a name for each role: of neighbours of one role all with the first name, then with the second."""
    for role, group in groupby(lines, key=lambda line: line.role):
        neighbours = tuple(group)
        if not role:
            yield from neighbours
        for name in names.get(role, ()):
            for line in neighbours:
                title = line.title.replace("{}", name.title, 1)
                yield replace(line, title=title, model=name.model, notes=(*line.notes, *name.notes))


def find_figure(layout: Layout, place: Heading) -> Published | None:
    """The paper's figure at a crossing, where it has exactly one."""
    reported = () if place.ours else published.find_figures(layout.paper, place.model, place.method)
    found = [row for row in reported if row.is_of_metric(place.metric) and (row.versus or "") == place.versus]
    return found[0] if len(found) == 1 else None


def assign_marks(layout: Layout) -> dict[str, str]:
    """ "[a]", "[b]", … for each footnote, in reading order: caption, columns, rows, figures."""
    columns, rows = (tuple(expand_roles(lines, layout.names)) for lines in (layout.columns, layout.rows))
    figures = [found for row in rows for column in columns if (found := find_figure(layout, combine(row, column)))]
    texts = [*layout.notes, *(note for line in (*columns, *rows) for note in line.notes)]
    texts += [found.note for found in figures if found.note]
    return {text: f"[{letter}]" for text, letter in zip(dict.fromkeys(texts), string.ascii_lowercase, strict=False)}


def add_marks(text: str, notes: tuple[str, ...], letters: dict[str, str]) -> str:
    """The text with its footnotes' letters: "LDT [b][c]"."""
    return " ".join([text, "".join(letters[note] for note in notes)]) if notes else text


def format_heading(layout: Layout, line: Heading, letters: dict[str, str]) -> str:
    """A heading with the footnotes on the paper's figures along it: none where a net is only a study's."""
    foreign = line.role and line.model not in {name.model for name in layout.names[line.role]}
    return line.title if foreign else add_marks(line.title, line.notes, letters)

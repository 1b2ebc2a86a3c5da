"""Contents of a study's report: TABLES lists its tables and SECTIONS the sections of its page, each in their order.

A new table is a function from the study's records to tables (a file in tables/) and a line in TABLES. It is then
written to the study's tables/ folder and, where the line names a section, shown on the page. A new section is a
function from the records to blocks (page/sections.py) and a line in SECTIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reports.figures.style import ReportFigure
from reports.format.table import Table
from reports.load import StudyRecords
from reports.page import sections
from reports.page.blocks import Block, FigureGrid, Heading
from reports.papers import paper_tables
from reports.tables import (
    ablation,
    across_students,
    budget,
    comparison,
    costs,
    front,
    per_class,
    population,
    provenance,
    search,
    trials,
)


@dataclass(frozen=True)
class ReportTable:
    """An entry of TABLES."""

    make: Callable[[StudyRecords], Iterable[Table]]
    """Returns the study's tables of this kind; empty where it has none."""
    section: str = ""
    """Id of the section that shows them, below what it shows itself. Without one they are written to tables/ alone."""
    file: str = ""
    """One Markdown and one LaTeX file for all of them, by this name; without it each table has files of its own."""


@dataclass(frozen=True)
class Section:
    """A section of the page. Those without blocks and tables are left out."""

    id: str
    title: str
    show: Callable[[StudyRecords], Iterable[Block]] = lambda records: ()


TABLES = (
    ReportTable(comparison.make_tables, section="comparison", file="comparison"),
    ReportTable(front.make_tables, section="comparison"),
    ReportTable(ablation.make_tables, section="comparison"),
    ReportTable(across_students.make_tables, section="comparison"),
    ReportTable(per_class.make_metric_tables, section="comparison"),
    ReportTable(costs.make_tables, section="nets"),
    ReportTable(costs.make_export_tables, section="nets"),
    ReportTable(paper_tables.make_tables, section="papers"),
    ReportTable(per_class.make_tables, section="classes"),
    ReportTable(search.make_tables, section="search"),
    ReportTable(population.make_tables, section="search"),
    ReportTable(budget.make_tables, section="budget"),
    ReportTable(trials.make_tables, section="failures"),
    ReportTable(provenance.make_duplicate_tables),
)

SECTIONS = (
    Section("comparison", "Comparison", sections.show_comparison),
    Section("papers", "The papers' tables"),
    Section("classes", "By class"),
    Section("nets", "Nets", sections.show_nets),
    Section("curves", "Learning curves", sections.show_curves),
    Section("examples", "Examples", sections.show_examples),
    Section("search", "Search", sections.show_search),
    Section("trials", "Trials", sections.show_trials),
    Section("budget", "Budget", sections.show_budget),
    Section("settings", "Settings", sections.show_settings),
    Section("provenance", "Provenance", sections.show_provenance),
    Section("space", "Space file", sections.show_space_file),
    Section("failures", "Failures", sections.show_failures),
)

Tables = list[tuple[ReportTable, tuple[Table, ...]]]
Sections = list[tuple[Section, list[Block]]]


def make_tables(records: StudyRecords) -> Tables:
    """Return the entries of TABLES, each with the study's tables. Raises ValueError if one names an unknown section."""
    known = {section.id for section in SECTIONS}
    for entry in TABLES:
        if entry.section and entry.section not in known:
            raise ValueError(f"TABLES names a section {entry.section!r}; SECTIONS has {', '.join(sorted(known))}")
    return [(entry, tuple(entry.make(records))) for entry in TABLES]


def make_sections(records: StudyRecords, tables: Tables) -> Sections:
    """Return the sections that have something to show, each with its blocks."""
    made = [(section, _make_blocks(section, records, tables)) for section in SECTIONS]
    return [(section, blocks) for section, blocks in made if blocks]


def list_figures(made: Sections) -> list[ReportFigure]:
    """Return all figures of the page, in its order."""
    blocks = [block for _, blocks in made for block in blocks]
    grouped = [block.figures if isinstance(block, FigureGrid) else (block,) for block in blocks]
    return [figure for figures in grouped for figure in figures if isinstance(figure, ReportFigure)]


def _make_blocks(section: Section, records: StudyRecords, tables: Tables) -> list[Block]:
    """Return what the section shows itself, then those of its tables that are not among it."""
    blocks = list(section.show(records))
    shown = {block for block in blocks if isinstance(block, Table)}
    for table in (table for entry, made in tables if entry.section == section.id for table in made):
        if table.rows and table not in shown:
            blocks += [Heading(table.caption), table]
    return blocks

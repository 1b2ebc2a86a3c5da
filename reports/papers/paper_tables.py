"""The papers' comparison tables, filled with the results of a study.

If the study follows a paper's data and protocol, each cell has the measured and the published figure. Otherwise
published figures have greyed rows of their own, with the reason why they are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reports.format.table import Table
from reports.load import StudyRecords
from reports.papers.cells import format_measured, format_published
from reports.papers.p0_face_parsing import P0_TABLE_1, P0_TABLE_2, P0_TABLE_3
from reports.papers.p1_cifar import P1_TABLE_1
from reports.papers.p2_face_sr import P2_TABLE_1
from reports.papers.p4_crowd_counting import P4_TABLE_1, P4_TABLE_2
from reports.papers.schema import (
    Heading,
    Layout,
    add_marks,
    assign_marks,
    combine,
    expand_roles,
    find_figure,
    format_heading,
)
from reports.text.summary import explain_incomplete_data

LAYOUTS = (P0_TABLE_1, P0_TABLE_2, P0_TABLE_3, P1_TABLE_1, P2_TABLE_1, P4_TABLE_1, P4_TABLE_2)

NetsByRole = dict[str, tuple[Heading, ...]]
TableRow = tuple[tuple[str, ...], str]
"""The cells of a row, and its kind."""


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the tables of the papers whose methods the study's arms name."""
    return [make_paper_table(records, layout) for layout in LAYOUTS if _is_relevant(records, layout)]


def make_paper_table(records: StudyRecords, layout: Layout) -> Table:
    """Return a paper's table with the study's figures."""
    reason, marks = _explain_incomparable(records, layout.paper), assign_marks(layout)
    extra = ("figures",) if reason else ()
    papers, own = layout.names, _list_nets(records, layout)
    columns = tuple(expand_roles(layout.columns, _merge(papers, own) if reason is None else _merge(own, papers)))
    yield_rows = _yield_combined_rows if reason is None else _yield_separate_rows
    body = tuple(yield_rows(records, layout, columns))
    return Table(
        name=f"{layout.paper}-table-{layout.number}",
        caption=add_marks(f"{layout.paper}, table {layout.number}: {layout.caption}", layout.notes, marks),
        columns=(layout.head, *extra, *(_format_column(records, layout, column, marks) for column in columns)),
        align="l" + "l" * len(extra) + "r" * len(columns),
        rows=tuple(cells for cells, _ in body),
        kinds=tuple(kind for _, kind in body),
        notes=tuple(_make_notes(records, layout, reason, marks)),
    )


def _format_column(records: StudyRecords, layout: Layout, column: Heading, marks: dict[str, str]) -> str:
    """Return a column's heading with the options of its metric, if the study records any: "PSNR, dB (RGB, …)"."""
    options = records.section("inputs", "data", "measured_as").get(column.metric)
    title = f"{column.title} ({options})" if options else column.title
    return format_heading(layout, replace(column, title=title), marks)


# -- rows ----------------------------------------------------------------------------------------------------------


def _yield_combined_rows(records: StudyRecords, layout: Layout, columns: tuple[Heading, ...]) -> Iterator[TableRow]:
    """Yield rows of measured and published figures in the same cells, each row with its kind."""
    marks = assign_marks(layout)
    for row in expand_roles(_list_rows(records, layout), _merge(layout.names, _list_nets(records, layout))):
        cells = []
        for spec in (combine(row, column) for column in columns):
            found = find_figure(layout, spec)
            published_part = f"; published {format_published(found, marks)}" if found else ""
            cells.append(format_measured(records, layout, spec) + published_part)
        yield (format_heading(layout, row, marks), *cells), ""


def _yield_separate_rows(records: StudyRecords, layout: Layout, columns: tuple[Heading, ...]) -> Iterator[TableRow]:
    """Yield rows of measured figures, then greyed rows of published figures, each row with its kind."""
    marks = assign_marks(layout)
    ours = (version for row in _list_rows(records, layout) for version in _expand_versions(records, row))
    for row in expand_roles(ours, _list_nets(records, layout)):
        cells = [format_measured(records, layout, combine(row, column)) for column in columns]
        yield (row.title, "this study", *cells), ""
    for row in expand_roles((row for row in layout.rows if not row.ours), layout.names):
        figures = [find_figure(layout, combine(row, column)) for column in columns]
        cells = [format_published(found, marks) if found else "–" for found in figures]
        yield (format_heading(layout, row, marks), f"{layout.paper}'s, not comparable", *cells), "greyed"


def _list_rows(records: StudyRecords, layout: Layout) -> tuple[Heading, ...]:
    """Return the paper's rows and ours, without those of a net that the study lacks and the paper does not report.

    Of some tables, each arm that no paper reports has a row, too.
    """
    rows = [row for row in layout.rows if not (row.ours and row.model and row.model not in records.students)]
    further = dict.fromkeys(cell.arm for cell in records.cells if layout.further_arms and not cell.published)
    return (*rows, *(Heading("{}, " + arm, "student", arm=arm, ours=True) for arm in further))


def _expand_versions(records: StudyRecords, row: Heading) -> list[Heading]:
    """Return the row of a named net; if the study has only narrow versions of that net, a row for each."""
    narrow = [student for student in records.students if row.model and student.startswith(f"{row.model}-")]
    if row.model in records.students or not narrow:
        return [row]
    return [replace(row, title=student, model=student) for student in narrow]


def _list_nets(records: StudyRecords, layout: Layout) -> NetsByRole:
    """Return the study's nets by role, with the paper's titles for nets that it has."""
    titles = {net.model: net for nets in layout.names.values() for net in nets}
    fixed = {version.model for row in layout.rows if row.model for version in _expand_versions(records, row)}
    teacher, students = records.section("teacher").get("name"), [s for s in records.students if s not in fixed]
    students = students[:1] if layout.single_student else students
    own = {"teacher": [str(teacher)] if teacher else [], "student": students}
    return {role: tuple(titles.get(name, Heading(name, model=name)) for name in names) for role, names in own.items()}


def _merge(first: NetsByRole, second: NetsByRole) -> NetsByRole:
    return {role: tuple(dict.fromkeys((*nets, *second[role]))) for role, nets in first.items()}


# -- selection and notes -------------------------------------------------------------------------------------------


def _is_relevant(records: StudyRecords, layout: Layout) -> bool:
    """Return whether the study measures the metric of the table for one of its methods."""
    measured = {records.test_metric, *records.section("metrics")}
    methods = {heading.method for heading in (*layout.rows, *layout.columns) if heading.method}
    named = [cell.published.lower() for cell in records.cells if cell.published]
    found = any(name == method or name.startswith(f"{method} ") for name in named for method in methods)
    return found and f"test/{layout.metric}" in measured


def _explain_incomparable(records: StudyRecords, paper: str) -> str | None:
    """Return why the paper's figures are not comparable with measured ones; None if they are."""
    if records.followed_protocol == paper:
        return None
    if records.declared_protocol == paper:
        return f"its data are not {paper}'s: {explain_incomplete_data(records)}"
    return f"this study runs on {records.data_name}, not under {paper}'s protocol"


def _make_notes(records: StudyRecords, layout: Layout, reason: str | None, marks: dict[str, str]) -> Iterator[str]:
    if reason:
        yield (
            f"Greyed: published in {layout.paper} and not to be compared with this study's figures, since {reason}. "
            "Each has the epoch that it is of, as far as the paper states it."
        )
    differences = any(heading.versus for heading in layout.rows)
    paired = "; differences are paired by seed, with their 95 % BCa interval [ ]" if differences else ""
    source = records.section("teacher").get("source")
    single = f"; a teacher is one run{f' ({source})' if source else ''}" if layout.teacher else ""
    yield (
        f"Measured: the mean of n runs at their last epoch, ± its 95 % t interval{paired}{single}. Where recorded, the "
        "same runs at their best validation epoch; never at the best test epoch."
    )
    yield from (f"{mark} {text[:1].upper()}{text[1:]}." for text, mark in marks.items())

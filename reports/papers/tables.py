"""The papers' comparison tables, filled with what a study has measured.

Under a paper's own data and protocol each measured figure has the published one beside it. Elsewhere published figures
stand in rows of their own, greyed, with the reason why they are not to be compared. Measured are the last epoch and,
where a study records it, the best validation epoch; a best test epoch is never taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reports.analysis import published, statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.costs import Net
from reports.analysis.published import Published
from reports.format.table import Table
from reports.format.values import format_count, format_milliseconds
from reports.load import Cell, StudyRecords
from reports.papers.layouts import layouts
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
from reports.text.results import format_difference, format_mean
from reports.text.summary import explain_incomplete_data

ABSENT = "– not in this study"
FLOAT32_BYTES = 4
OF_NETS = ("parameters", "size", "macs", "latency")


def make_tables(records: StudyRecords) -> list[Table]:
    """The tables of the papers whose methods this study's arms name, in the papers' order."""
    return [make_paper_table(records, layout) for layout in layouts() if _concerns(records, layout)]


def make_paper_table(records: StudyRecords, layout: Layout) -> Table:
    """A paper's table with this study's figures in it."""
    reason, letters = _why_not_beside(records, layout.paper), assign_marks(layout)
    papers, own = layout.names, _own_names(records, layout)
    columns = tuple(expand_roles(layout.columns, _joined(papers, own) if reason is None else _joined(own, papers)))
    body = tuple(_beside(records, layout, columns) if reason is None else _apart(records, layout, columns))
    return Table(
        name=f"{layout.paper}-table-{layout.number}",
        caption=add_marks(f"{layout.paper}, table {layout.number}: {layout.caption}", layout.notes, letters),
        columns=(
            layout.head,
            *["figures"] * (reason is not None),
            *(format_heading(layout, c, letters) for c in columns),
        ),
        align="l" + "l" * (reason is not None) + "r" * len(columns),
        rows=tuple(cells for cells, _ in body),
        kinds=tuple(kind for _, kind in body),
        notes=tuple(_notes(layout, reason, letters)),
    )


# -- rows ----------------------------------------------------------------------------------------------------------


def _beside(
    records: StudyRecords, layout: Layout, columns: tuple[Heading, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows of this study's figures, the published ones in the same cells; each with its kind."""
    letters = assign_marks(layout)
    for row in expand_roles(_rows(records, layout), _joined(layout.names, _own_names(records, layout))):
        cells = []
        for place in (combine(row, column) for column in columns):
            found = find_figure(layout, place)
            beside = f"; published {_quoted(found, letters)}" if found else ""
            cells.append(_measured(records, layout, place) + beside)
        yield (format_heading(layout, row, letters), *cells), ""


def _apart(
    records: StudyRecords, layout: Layout, columns: tuple[Heading, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows of this study's figures, then greyed ones of published figures."""
    letters = assign_marks(layout)
    ours = (version for row in _rows(records, layout) for version in _versions(records, row))
    for row in expand_roles(ours, _own_names(records, layout)):
        cells = [_measured(records, layout, combine(row, column)) for column in columns]
        yield (row.title, "this study", *cells), ""
    for row in expand_roles((line for line in layout.rows if not line.ours), layout.names):
        figures = [find_figure(layout, combine(row, column)) for column in columns]
        cells = [_quoted(found, letters) if found else "–" for found in figures]
        yield (format_heading(layout, row, letters), f"{layout.paper}'s, not comparable", *cells), "greyed"


def _rows(records: StudyRecords, layout: Layout) -> tuple[Heading, ...]:
    return (*layout.rows, *(_further(records) if layout.further_arms else ()))


def _versions(records: StudyRecords, row: Heading) -> list[Heading]:
    """The row of another net of the table; where the study has only narrow versions of that net, a row for each."""
    narrow = [student for student in records.students if row.model and student.startswith(f"{row.model}-")]
    if row.model in records.students or not narrow:
        return [row]
    return [replace(row, title=student, model=student) for student in narrow]


def _further(records: StudyRecords) -> Iterator[Heading]:
    """A row for each arm that no paper reports."""
    for arm in dict.fromkeys(cell.arm for cell in records.cells if not cell.published):
        yield Heading("{}, " + arm, "student", arm=arm, ours=True)


def _own_names(records: StudyRecords, layout: Layout) -> dict[str, tuple[Heading, ...]]:
    """This study's nets by role, titled as in the paper where it has them too."""
    titles = {line.model: line for lines in layout.names.values() for line in lines}
    fixed = {version.model for line in layout.rows if line.model for version in _versions(records, line)}
    teacher, students = records.section("teacher").get("name"), [s for s in records.students if s not in fixed]
    own = {"teacher": [str(teacher)] if teacher else [], "student": students}
    return {role: tuple(titles.get(name, Heading(name, model=name)) for name in names) for role, names in own.items()}


def _joined(
    first: dict[str, tuple[Heading, ...]], second: dict[str, tuple[Heading, ...]]
) -> dict[str, tuple[Heading, ...]]:
    return {role: tuple(dict.fromkeys((*lines, *second[role]))) for role, lines in first.items()}


# -- figures -------------------------------------------------------------------------------------------------------


def _measured(records: StudyRecords, layout: Layout, place: Heading) -> str:
    if place.metric in OF_NETS:
        return _of_net(records, place)
    if place.method == "teacher":
        return _teacher(records, place)
    cell = _cell(records, layout, place, place.method)
    base = _cell(records, layout, place, place.versus) if place.versus else None
    if cell is None or (place.versus and base is None):
        return ABSENT
    last, n = _figures(records, place, cell, base, f"test/{place.metric}")
    best, n_best = _figures(records, place, cell, base, f"test_at_best_val/{place.metric}")
    beside = f"; {best} at best val. epoch" + (f" (n = {n_best})" if n_best != n else "")
    return (f"{last} (n = {n})" if n else _no_result(records, place)) + (beside if n_best else "")


def _no_result(records: StudyRecords, place: Heading) -> str:
    """Why nothing was measured, where the study's inputs tell it: an absent file of weights, say."""
    return f"– {records.section('inputs', 'data', 'absent').get(place.metric, 'no result')}"


def _figures(records: StudyRecords, place: Heading, cell: Cell, base: Cell | None, column: str) -> tuple[str, int]:
    """A cell's mean or its paired difference to the base, and of how many runs."""
    tested, written = group_by_seed(records, column), replace(records.get_metric(column), digits=place.digits)
    values = tested.get(cell.name, {})
    if base is None:
        mean = statistics.compute_mean(list(values.values())) if values else None
        return format_mean(written, mean), len(values)
    other = tested.get(base.name, {})
    if why := records.explain_mixed_code(cell, base):
        return f"not judged: {why}", len(values.keys() & other.keys())
    shared = sorted(values.keys() & other.keys())
    ours, theirs = [values[seed] for seed in shared], [other[seed] for seed in shared]
    paired = statistics.compare_paired(ours, theirs, records.get_direction(column)) if shared else None
    text = format_difference(written, paired.difference, paired.interval) if paired else "–"
    return text, len(shared)


def _cell(records: StudyRecords, layout: Layout, place: Heading, method: str) -> Cell | None:
    """The cell of this net under this method.

    A net that the paper reports under one setting of a method has to be under that setting; others under any. A
    "baseline" is a net of its own, trained without a teacher.
    """
    cells = records.get_cells(place.model)
    if place.arm:
        return next((cell for cell in cells if cell.arm == place.arm), None)
    reported = published.find_figures(layout.paper, place.model, method)
    settings = tuple(f"{row.method} {row.setting}" for row in reported if row.setting)
    undistilled = ("none",) * (method == "baseline")
    exact = [cell for cell in cells if (cell.published or cell.arm).lower() in (method, *settings, *undistilled)]
    under_any = [cell for cell in cells if (cell.published or "").startswith(f"{method} ") and not settings]
    return next(iter(exact + under_any), None)


def _teacher(records: StudyRecords, place: Heading) -> str:
    if records.section("teacher").get("name") != place.model:
        return ABSENT
    value = records.section("teacher", "metrics").get(f"test/{place.metric}")
    written = replace(records.get_metric(f"test/{place.metric}"), digits=place.digits)
    return f"{written.format(float(value))} (n = 1)" if isinstance(value, int | float) else _no_result(records, place)


def _of_net(records: StudyRecords, place: Heading) -> str:
    """What a net has and takes, whatever it was trained by."""
    teacher = records.section("teacher")
    of_teacher = place.method == "teacher" and teacher.get("name") == place.model
    net = Net(place.model, of_teacher, teacher if of_teacher else records.section("students", place.model))
    parameters = net.get_cost("parameters")
    if parameters is None:
        return ABSENT
    if place.metric == "macs":
        return format_count(net.get_cost("macs"))
    if place.metric == "latency":
        return format_milliseconds(net.get_cost("latency_seconds"))
    size = f" ({FLOAT32_BYTES * parameters / 1e6:.3f} MB)" if place.metric == "size" else ""
    return f"{parameters:,.0f}{size}"


def _quoted(found: Published, letters: dict[str, str]) -> str:
    return f"{add_marks(found.text, (found.note,) if found.note else (), letters)}, {found.epoch}"


# -- what is said of them ------------------------------------------------------------------------------------------


def _concerns(records: StudyRecords, layout: Layout) -> bool:
    """Whether the study measures what the table does, under a method that is in it."""
    measured = {records.test_metric, *records.section("metrics")}
    methods = {line.method for line in (*layout.rows, *layout.columns) if line.method}
    named = [cell.published.lower() for cell in records.cells if cell.published]
    found = any(name == method or name.startswith(f"{method} ") for name in named for method in methods)
    return found and f"test/{layout.metric}" in measured


def _why_not_beside(records: StudyRecords, paper: str) -> str | None:
    """Why the paper's figures may not stand beside measured ones; None if they may."""
    if records.followed_protocol == paper:
        return None
    if records.declared_protocol == paper:
        return f"its data are not {paper}'s: {explain_incomplete_data(records)}"
    return f"this study runs on {records.data_name}, not under {paper}'s protocol"


def _notes(layout: Layout, reason: str | None, letters: dict[str, str]) -> Iterator[str]:
    if reason:
        yield (
            f"Greyed: published in {layout.paper} and not to be compared with this study's figures, since {reason}. "
            "Each has the epoch that it is of, as far as the paper states it."
        )
    differences = any(line.versus for line in layout.rows)
    paired = "; differences are paired by seed, with their 95 % BCa interval [ ]" if differences else ""
    single = "; a teacher is one run" if layout.teacher else ""
    yield (
        f"Measured: the mean of n runs at their last epoch, ± its 95 % t interval{paired}{single}. Where recorded, the "
        "same runs at their best validation epoch; never at the best test epoch."
    )
    yield from (f"{mark} {text[:1].upper()}{text[1:]}." for text, mark in letters.items())

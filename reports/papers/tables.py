"""The papers' comparison tables, filled with what a study has measured.

Under a paper's own data and protocol each measured figure has the published one beside it. Elsewhere published figures
stand in rows of their own, greyed, with the reason why they are not to be compared. Measured are the last epoch and,
where a study records it, the best validation epoch; a best test epoch is never taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reports.analysis import published, statistics
from reports.analysis.comparison import by_seed, protocol
from reports.analysis.published import Published
from reports.format.table import Table
from reports.load import Cell, StudyRecords
from reports.papers.layouts import layouts
from reports.papers.schema import Layout, Line, crossed, expanded, figure, marked, marks, title
from reports.tables.comparison import difference_text, mean_text
from reports.tables.costs import Net, count, milliseconds
from reports.text.summary import altered

ABSENT = "– not in this study"
FLOAT32_BYTES = 4
OF_NETS = ("parameters", "size", "macs", "latency")


def paper_tables(records: StudyRecords) -> tuple[Table, ...]:
    """The tables of the papers whose methods this study's arms name, in the papers' order."""
    return tuple(paper_table(records, layout) for layout in layouts() if _concerns(records, layout))


def paper_table(records: StudyRecords, layout: Layout) -> Table:
    """A paper's table with this study's figures in it."""
    reason, letters = _why_not_beside(records, layout.paper), marks(layout)
    papers, own = layout.names, _own_names(records, layout)
    columns = tuple(expanded(layout.columns, _joined(papers, own) if reason is None else _joined(own, papers)))
    body = tuple(_beside(records, layout, columns) if reason is None else _apart(records, layout, columns))
    return Table(
        name=f"{layout.paper}-table-{layout.number}",
        caption=marked(f"{layout.paper}, table {layout.number}: {layout.caption}", layout.notes, letters),
        columns=(layout.head, *["figures"] * (reason is not None), *(title(layout, c, letters) for c in columns)),
        align="l" + "l" * (reason is not None) + "r" * len(columns),
        rows=tuple(cells for cells, _ in body),
        kinds=tuple(kind for _, kind in body),
        notes=tuple(_notes(layout, reason, letters)),
    )


# -- rows ----------------------------------------------------------------------------------------------------------


def _beside(records: StudyRecords, layout: Layout, columns: tuple[Line, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows of this study's figures, the published ones in the same cells; each with its kind."""
    letters = marks(layout)
    for row in expanded(_rows(records, layout), _joined(layout.names, _own_names(records, layout))):
        cells = []
        for place in (crossed(row, column) for column in columns):
            found = figure(layout, place)
            beside = f"; published {_quoted(found, letters)}" if found else ""
            cells.append(_measured(records, layout, place) + beside)
        yield (title(layout, row, letters), *cells), ""


def _apart(records: StudyRecords, layout: Layout, columns: tuple[Line, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows of this study's figures, then greyed ones of published figures."""
    letters = marks(layout)
    ours = (version for row in _rows(records, layout) for version in _versions(records, row))
    for row in expanded(ours, _own_names(records, layout)):
        cells = [_measured(records, layout, crossed(row, column)) for column in columns]
        yield (row.title, "this study", *cells), ""
    for row in expanded((line for line in layout.rows if not line.ours), layout.names):
        figures = [figure(layout, crossed(row, column)) for column in columns]
        cells = [_quoted(found, letters) if found else "–" for found in figures]
        yield (title(layout, row, letters), f"{layout.paper}'s, not comparable", *cells), "greyed"


def _rows(records: StudyRecords, layout: Layout) -> tuple[Line, ...]:
    return (*layout.rows, *(_further(records) if layout.further_arms else ()))


def _versions(records: StudyRecords, row: Line) -> list[Line]:
    """The row of another net of the table; where the study has only narrow versions of that net, a row for each."""
    narrow = [student for student in records.students if row.model and student.startswith(f"{row.model}-")]
    if row.model in records.students or not narrow:
        return [row]
    return [replace(row, title=student, model=student) for student in narrow]


def _further(records: StudyRecords) -> Iterator[Line]:
    """A row for each arm that no paper reports."""
    for arm in dict.fromkeys(cell.arm for cell in records.cells if not cell.published):
        yield Line("{}, " + arm, "student", arm=arm, ours=True)


def _own_names(records: StudyRecords, layout: Layout) -> dict[str, tuple[Line, ...]]:
    """This study's nets by role, titled as in the paper where it has them too."""
    titles = {line.model: line for lines in layout.names.values() for line in lines}
    fixed = {version.model for line in layout.rows if line.model for version in _versions(records, line)}
    teacher, students = records.section("teacher").get("name"), [s for s in records.students if s not in fixed]
    own = {"teacher": [str(teacher)] if teacher else [], "student": students}
    return {role: tuple(titles.get(name, Line(name, model=name)) for name in names) for role, names in own.items()}


def _joined(first: dict[str, tuple[Line, ...]], second: dict[str, tuple[Line, ...]]) -> dict[str, tuple[Line, ...]]:
    return {role: tuple(dict.fromkeys((*lines, *second[role]))) for role, lines in first.items()}


# -- figures -------------------------------------------------------------------------------------------------------


def _measured(records: StudyRecords, layout: Layout, place: Line) -> str:
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


def _no_result(records: StudyRecords, place: Line) -> str:
    """Why nothing was measured, where the study's inputs tell it: an absent file of weights, say."""
    return f"– {records.section('inputs', 'data', 'absent').get(place.metric, 'no result')}"


def _figures(records: StudyRecords, place: Line, cell: Cell, base: Cell | None, column: str) -> tuple[str, int]:
    """A cell's mean or its paired difference to the base, and of how many runs."""
    tested, written = by_seed(records, column), replace(records.get_metric(column), digits=place.digits)
    values = tested.get(cell.name, {})
    if base is None:
        mean = statistics.mean_interval(list(values.values())) if values else None
        return mean_text(written, mean), len(values)
    other = tested.get(base.name, {})
    if why := records.mixed_code(cell, base):
        return f"not judged: {why}", len(values.keys() & other.keys())
    shared = sorted(values.keys() & other.keys())
    ours, theirs = [values[seed] for seed in shared], [other[seed] for seed in shared]
    paired = statistics.paired(ours, theirs, records.direction_of(column)) if shared else None
    return difference_text(written, paired), len(shared)


def _cell(records: StudyRecords, layout: Layout, place: Line, method: str) -> Cell | None:
    """The cell of this net under this method.

    A net that the paper reports under one setting of a method has to be under that setting; others under any. A
    "baseline" is a net of its own, trained without a teacher.
    """
    cells = records.cells_of(place.model)
    if place.arm:
        return next((cell for cell in cells if cell.arm == place.arm), None)
    reported = published.find(layout.paper, place.model, method)
    settings = tuple(f"{row.method} {row.setting}" for row in reported if row.setting)
    undistilled = ("none",) * (method == "baseline")
    exact = [cell for cell in cells if (cell.published or cell.arm).lower() in (method, *settings, *undistilled)]
    under_any = [cell for cell in cells if (cell.published or "").startswith(f"{method} ") and not settings]
    return next(iter(exact + under_any), None)


def _teacher(records: StudyRecords, place: Line) -> str:
    if records.section("teacher").get("name") != place.model:
        return ABSENT
    value = records.section("teacher", "metrics").get(f"test/{place.metric}")
    written = replace(records.get_metric(f"test/{place.metric}"), digits=place.digits)
    return f"{written.text(float(value))} (n = 1)" if isinstance(value, int | float) else _no_result(records, place)


def _of_net(records: StudyRecords, place: Line) -> str:
    """What a net has and takes, whatever it was trained by."""
    teacher = records.section("teacher")
    of_teacher = place.method == "teacher" and teacher.get("name") == place.model
    net = Net(place.model, of_teacher, teacher if of_teacher else records.section("students", place.model))
    parameters = net.number("parameters")
    if parameters is None:
        return ABSENT
    if place.metric == "macs":
        return count(net.number("macs"))
    if place.metric == "latency":
        return milliseconds(net.number("latency_seconds"))
    size = f" ({FLOAT32_BYTES * parameters / 1e6:.3f} MB)" if place.metric == "size" else ""
    return f"{parameters:,.0f}{size}"


def _quoted(found: Published, letters: dict[str, str]) -> str:
    return f"{marked(found.text, (found.note,) if found.note else (), letters)}, {found.epoch}"


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
    if protocol(records) == paper:
        return None
    if records.protocol == paper:
        return f"its data are not {paper}'s: {altered(records)}"
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

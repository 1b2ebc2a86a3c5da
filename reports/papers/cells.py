"""The cells of the papers' tables: measured figures of a study, and published ones.

Measured figures are of the last epoch and, if recorded, of the best validation epoch; never of the best test epoch.
"""

from __future__ import annotations

from dataclasses import replace

from reports.analysis import published, statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.costs import Net
from reports.analysis.published import Published
from reports.format.values import format_count, format_milliseconds
from reports.load import Cell, StudyRecords
from reports.papers.schema import Heading, Layout, add_marks
from reports.text.results import format_difference, format_mean

ABSENT = "– not in this study"
FLOAT32_BYTES = 4
NET_PROPERTIES = ("parameters", "size_mb", "macs", "latency")


def format_measured(records: StudyRecords, layout: Layout, spec: Heading) -> str:
    """Return what the study measured for a cell: a mean or a difference with its runs, or why there is none."""
    if spec.blank:
        return "–"
    if spec.metric in NET_PROPERTIES:
        return _format_net_property(records, spec)
    if spec.method == "teacher":
        return _format_teacher(records, spec)
    cell = _find_cell(records, layout, spec, spec.method)
    base = _find_cell(records, layout, spec, spec.versus) if spec.versus else None
    if cell is None or (spec.versus and base is None):
        return ABSENT
    last, n = _measure(records, spec, cell, base, f"test/{spec.metric}")
    best, n_best = _measure(records, spec, cell, base, f"test_at_best_val/{spec.metric}")
    at_best = f"; {best} at best val. epoch" + (f" (n = {n_best})" if n_best != n else "")
    return (f"{last} (n = {n})" if n else _explain_no_result(records, spec)) + (at_best if n_best else "")


def _explain_no_result(records: StudyRecords, spec: Heading) -> str:
    """Return why nothing was measured, if the inputs of the study record it: a missing file of weights, for example."""
    return f"– {records.section('inputs', 'data', 'absent').get(spec.metric, 'no result')}"


def _measure(records: StudyRecords, spec: Heading, cell: Cell, base: Cell | None, column: str) -> tuple[str, int]:
    """Return a cell's mean or its paired difference to the base, and the number of runs."""
    tested, recorded = group_by_seed(records, column), records.get_metric(column)
    metric = replace(recorded, digits=spec.digits)
    values = tested.get(cell.name, {})
    if base is None:
        mean = statistics.compute_mean(list(values.values())) if values else None
        return format_mean(metric, mean), len(values)
    other = tested.get(base.name, {})
    if reason := records.explain_mixed_code(cell, base):
        return f"not judged: {reason}", len(values.keys() & other.keys())
    shared = sorted(values.keys() & other.keys())
    cell_values, base_values = [values[seed] for seed in shared], [other[seed] for seed in shared]
    if not shared:
        return "–", 0
    direction = records.get_direction(column)
    paired = statistics.compare_paired(cell_values, base_values, direction, resolution=recorded.resolution)
    return format_difference(metric, paired.difference, paired.interval), len(shared)


def _find_cell(records: StudyRecords, layout: Layout, spec: Heading, method: str) -> Cell | None:
    """Return the study's cell for a net and a method.

    If the paper reports the net under a particular setting of the method, the cell must have that setting; otherwise
    any setting will do. A "baseline" is a net of its own, trained as its authors do, or else without distillation.
    """
    cells = records.get_cells(spec.model)
    if spec.arm:
        return next((cell for cell in cells if cell.arm == spec.arm), None)
    reported = published.find_figures(layout.paper, spec.model, method)
    settings = tuple(f"{row.method} {row.setting}" for row in reported if row.setting)
    named = (method, *settings)
    exact = [cell for cell in cells if (cell.published or cell.arm).lower() in named]
    exact += [cell for cell in cells if method == "baseline" and (cell.published or cell.arm).lower() == "none"]
    under_any = [cell for cell in cells if (cell.published or "").startswith(f"{method} ") and not settings]
    return next(iter(exact + under_any), None)


def _format_teacher(records: StudyRecords, spec: Heading) -> str:
    if records.section("teacher").get("name") != spec.model:
        return ABSENT
    value = records.section("teacher", "metrics").get(f"test/{spec.metric}")
    metric = replace(records.get_metric(f"test/{spec.metric}"), digits=spec.digits)
    measured = f"{metric.format(float(value))} (n = 1)" if isinstance(value, int | float) else ""
    return measured or _explain_no_result(records, spec)


def _format_net_property(records: StudyRecords, spec: Heading) -> str:
    """Return a property of a net, which does not depend on its training: parameters, size, MACs or latency."""
    teacher = records.section("teacher")
    of_teacher = spec.method == "teacher" and teacher.get("name") == spec.model
    net = Net(spec.model, of_teacher, teacher if of_teacher else records.section("students", spec.model))
    parameters = net.get_cost("parameters")
    if parameters is None:
        return ABSENT
    if spec.metric == "macs":
        return format_count(net.get_cost("macs"))
    if spec.metric == "latency":
        return format_milliseconds(net.get_cost("latency_seconds"))
    if spec.metric == "size_mb":
        return f"{FLOAT32_BYTES * parameters / 1e6:.3f}"
    return f"{parameters:,.0f}"


def format_published(found: Published, marks: dict[str, str]) -> str:
    """Return a paper's figure with the mark of its footnote and the epoch that it is of."""
    return f"{add_marks(found.text, (found.note,) if found.note else (), marks)}, {found.epoch}"

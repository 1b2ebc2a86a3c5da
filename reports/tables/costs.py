"""What the nets of a study take to run: a table, and test scores against it.

Figures are a data step, then a drawing step. Studies recorded without costs have neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from reports.analysis import statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.pareto import find_pareto_front
from reports.figures.style import GREY, PALETTE, ReportFigure, escape_plotly, line_style, new_figure, round_values
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.load import StudyRecords

PREFIXES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
AXES = (
    ("parameters", "parameters", 1.0),
    ("macs", "multiply-accumulates of one input", 1.0),
    ("latency_seconds", "latency of one input, ms", 1000.0),
)
"""By the name in study.json: what is written at the axis, and its factor."""
WIDE = 10
"""A ratio of costs from which on their axis is logarithmic."""


@dataclass(frozen=True)
class Net:
    """A net by its entry in study.json."""

    name: str
    teacher: bool
    entry: Mapping[str, Any]

    def get_cost(self, key: str) -> float | None:
        value = self.entry.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


@dataclass(frozen=True)
class ScoredCell:
    """A net with its test score under an arm, in the written unit; the teacher has no arm."""

    net: Net
    arm: str
    position: int
    """Of the arm within the study: decides its colour."""
    score: float
    half: float
    """Of the 95 % t interval; 0 for one run."""


def list_nets(records: StudyRecords) -> list[Net]:
    """The teacher, if there is one, and the students in the study's order."""
    teacher = records.section("teacher")
    first = [Net(str(teacher.get("name") or "teacher"), True, teacher)] if teacher else []
    return first + [Net(name, False, records.section("students", name)) for name in records.students]


def make_cost_table(records: StudyRecords) -> Table | None:
    """Parameters, MACs and latency of each net; None where nothing but parameters is on record."""
    listed = list_nets(records)
    if not any(net.get_cost("macs") for net in listed):
        return None
    return Table(
        name="nets",
        caption="Students and teacher: parameters, MACs, latency",
        columns=("net", "parameters", "MACs", "latency, ms", "fastest to slowest, ms"),
        align="lrrrr",
        rows=tuple(_row(net) for net in listed),
        kinds=tuple("reference" if net.teacher else "" for net in listed),
        notes=(_note(listed),),
    )


def format_count(value: float | None) -> str:
    """ "1.23 M": three significant digits, and a decimal prefix."""
    if value is None:
        return "–"
    value = float(f"{value:.3g}")
    factor, prefix = next(((size, sign) for size, sign in PREFIXES if value >= size), (1.0, ""))
    return f"{_three(value / factor)}{prefix}"


def format_milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else _three(1000 * seconds)


def _three(value: float) -> str:
    """Three significant digits, all of those before the point, never with an exponent."""
    value = float(f"{value:.3g}") if value < 1000 else value
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.3g}"


def _row(net: Net) -> tuple[str, ...]:
    parameters = net.get_cost("parameters")
    spread = net.entry.get("latency_range_seconds")
    runs = net.entry.get("latency_runs")
    between = (
        f"{format_milliseconds(spread[0])} to {format_milliseconds(spread[1])}" if isinstance(spread, list) else "–"
    )
    return (
        f"teacher: {net.name}" if net.teacher else net.name,
        "–" if parameters is None else f"{parameters:,.0f}",
        format_count(net.get_cost("macs")),
        format_milliseconds(net.get_cost("latency_seconds")),
        between + (f" in {runs} pass{'es' * (runs != 1)}" if isinstance(runs, int) else ""),
    )


def _note(listed: Sequence[Net]) -> str:
    shapes = dict.fromkeys(" × ".join(map(str, net.entry["input"])) for net in listed if net.entry.get("input"))
    cpus = dict.fromkeys(str(net.entry["latency_cpu"]) for net in listed if net.entry.get("latency_cpu"))
    return (
        "MACs are multiply-accumulates of convolutions and matrix products in one pass of one input, "
        f"{' or '.join(shapes) or 'of a size not on record'} (channels × height × width, a validation image). Latency "
        f"is the median of such passes on one thread of {' or '.join(cpus) or 'a CPU not on record'}."
    )


# -- scores against costs ------------------------------------------------------------------------------------------


def cost_figures(records: StudyRecords) -> list[ReportFigure]:
    """The test metric against each cost; none where all nets cost the same, or costs are not on record."""
    data = score_cells(records)
    if not any(one.net.get_cost("macs") for one in data):
        return []
    written, direction = records.get_metric(records.test_metric), records.get_direction(records.test_metric)
    drawn = []
    for key, label, factor in AXES:
        known = [one for one in data if one.net.get_cost(key)]
        if len({one.net.get_cost(key) for one in known}) > 1:
            drawn.append(draw_costs(known, key, label, factor, written, direction))
    return drawn


def score_cells(records: StudyRecords) -> list[ScoredCell]:
    """Each cell with a result, and the teacher."""
    written = records.get_metric(records.test_metric)
    arms = list(dict.fromkeys(cell.arm for cell in records.cells))
    by_name = {net.name: net for net in list_nets(records) if not net.teacher}
    found = []
    for cell in records.cells:
        values = list(group_by_seed(records, records.test_metric).get(cell.name, {}).values())
        if not values:
            continue
        mean = statistics.compute_mean([value * written.factor for value in values])
        half = mean.interval.high - mean.mean if mean.interval else 0.0
        found.append(ScoredCell(by_name[cell.student], cell.arm, arms.index(cell.arm), mean.mean, half))
    of_teacher = records.section("teacher", "metrics").get(records.test_metric)
    teacher = next((net for net in list_nets(records) if net.teacher), None)
    if teacher is not None and isinstance(of_teacher, int | float):
        found.append(ScoredCell(teacher, "", len(arms), of_teacher * written.factor, 0.0))
    return found


def find_cost_front(data: Sequence[ScoredCell], key: str, direction: statistics.Direction) -> list[ScoredCell]:
    """Those that no other surpasses in score at no higher cost, by cost."""
    rows = [{"score": one.score, "cost": one.net.get_cost(key)} for one in data]
    best = [data[position] for position in find_pareto_front(rows, ("score", "cost"), (direction, "min"))]
    return sorted(best, key=lambda one: (one.net.get_cost(key) or 0.0, one.score))


def draw_costs(
    data: Sequence[ScoredCell], key: str, label: str, factor: float, written: Metric, direction: statistics.Direction
) -> ReportFigure:
    """A mark for each cell, the arms in their colours, the teacher a star; the front as a stepped line."""
    arms = list(dict.fromkeys(one.arm for one in data))
    figure = new_figure(label, written.label, 260 + 20 * len(arms))
    figure.update_xaxes(showgrid=True)
    best = find_cost_front(data, key, direction)
    figure.add_scatter(x=_across(best, key, factor), y=round_values(one.score for one in best), mode="lines")
    # between two nets the cheaper one is what is had
    figure.data[-1].update(name="no other is better and cheaper", hoverinfo="skip")
    figure.data[-1].update(line={"color": GREY, "width": 1.5, "shape": "hv", "dash": "2px,3px"})
    for arm in arms:
        _draw_arm(figure, [one for one in data if one.arm == arm], key, factor, written)
    costs = [one.net.get_cost(key) or 1.0 for one in data]
    figure.update_xaxes(type="log" if max(costs) / min(costs) > WIDE else "linear")
    return ReportFigure(f"cost-{key}", f"{written.words} against {label.split(',')[0]}", "", figure, small=True)


def _draw_arm(figure: go.Figure, points: Sequence[ScoredCell], key: str, factor: float, written: Metric) -> None:
    arm, position = points[0].arm, points[0].position
    figure.add_scatter(x=_across(points, key, factor), y=round_values(one.score for one in points), mode="markers")
    star = {"color": PALETTE[4], "size": 14, "symbol": "star"}
    marker = {"color": line_style(position).colour, "size": 9} if arm else star
    value = f"{written.words}: %{{y:.{written.digits}f}}"
    across = ".4g" if key == "latency_seconds" else ".4s"  # milliseconds are no unit to be prefixed once more
    bars = {"type": "data", "array": round_values(one.half for one in points), "thickness": 1, "width": 3}
    figure.data[-1].update(name=escape_plotly(arm) if arm else "teacher", marker=marker, error_y=bars)
    figure.data[-1].update(
        customdata=[escape_plotly(f"{one.net.name}{f' / {arm}' if arm else ''}", 80) for one in points],
        hovertemplate=f"%{{customdata}}<br>%{{x:{across}}}<br>{value}<extra></extra>",
    )


def _across(points: Sequence[ScoredCell], key: str, factor: float) -> list[float | None]:
    return round_values((one.net.get_cost(key) or 0.0) * factor for one in points)

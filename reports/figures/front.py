"""Fronts as measured on test, next to those that the search found on validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from reports.analysis.comparison import Comparison
from reports.analysis.front import FrontPoint
from reports.analysis.search import list_objectives
from reports.figures.pareto import collect_front
from reports.figures.style import ReportFigure, escape_plotly, line_style, new_figure, round_values, with_alpha
from reports.format.values import format_params
from reports.load import StudyRecords


def draw_tested_fronts(records: StudyRecords, comparison: Comparison) -> Iterator[ReportFigure]:
    """Yield a figure for each further objective: every arm's confirmed points on test, and its validation front."""
    for name in list_objectives(records)[1:]:
        known = [point for point in comparison.points if name in point.costs]
        if known:
            yield _draw(records, comparison, name, known)


def _draw(records: StudyRecords, comparison: Comparison, name: str, points: Sequence[FrontPoint]) -> ReportFigure:
    cost, metric = records.get_metric(name), comparison.metric
    figure = new_figure(cost.label.removeprefix("validation "), metric.label.removeprefix("test "), 380)
    figure.update_xaxes(showgrid=True)
    for position in dict.fromkeys(point.position for point in points):
        of_arm = [point for point in points if point.position == position]
        _draw_search(figure, records, of_arm[0], name)
        _draw_points(figure, of_arm, name, records)
    short = "several objectives" if len(list_objectives(records)) > 2 else "both objectives"
    return ReportFigure(
        f"tested-front-{cost.bare}",
        f"{comparison.student}: fronts on test and on validation",
        "Filled: confirmed points on test, means over seeds with 95 % intervals. Small and dotted: the front that each "
        f"arm's search found on validation, the best of its trials in {short}; its scores are too good, as they were "
        "chosen among many. Open: students of other arms' points, trained for the comparison.",
        figure,
    )


def _draw_search(figure: go.Figure, records: StudyRecords, point: FrontPoint, name: str) -> None:
    """Draw the validation front of an arm's search."""
    data, objectives = collect_front(records, point.cell)
    if data.empty or name not in data:
        return
    front = data[data["front"]].sort_values(name)
    colour = line_style(point.position).colour
    figure.add_scatter(x=round_values(front[name]), y=round_values(front[objectives[0]]), mode="lines+markers")
    figure.data[-1].update(
        name=f"{escape_plotly(point.cell.arm)}, search",
        line={"color": with_alpha(colour, 0.6), "width": 1, "dash": "2px,3px"},
        marker={"color": with_alpha(colour, 0.6), "size": 4},
        hovertemplate="trial %{customdata}<extra></extra>",
        customdata=[str(number) for number in front["number"]],
        legendgroup=point.cell.arm,
        showlegend=False,
    )


def _draw_points(figure: go.Figure, points: Sequence[FrontPoint], name: str, records: StudyRecords) -> None:
    """Draw an arm's points on test: its own front joined, the students of other arms open."""
    metric, cost = records.get_metric(records.test_metric), records.get_metric(name)
    style, arm = line_style(points[0].position), points[0].cell.arm
    for is_own in (True, False):
        shown = sorted((one for one in points if one.is_own == is_own), key=lambda one: one.costs[name])
        if not shown:
            continue
        halves = [one.mean.interval.high - one.mean.mean if one.mean.interval else 0.0 for one in shown]
        figure.add_scatter(
            x=round_values(one.costs[name] * cost.factor for one in shown),
            y=round_values(one.mean.mean * metric.factor for one in shown),
            mode="lines+markers" if is_own else "markers",
        )
        figure.data[-1].update(
            name=escape_plotly(arm) if is_own else f"{escape_plotly(arm)}, for comparison",
            line={"color": style.colour, "width": 1.5},
            marker={"color": style.colour, "size": 9, "symbol": "circle" if is_own else "circle-open"},
            error_y={
                "type": "data",
                "array": round_values(half * metric.factor for half in halves),
                "thickness": 1,
                "width": 3,
            },
            customdata=[escape_plotly(f"{arm}: {format_params(one.params)}", 200) for one in shown],
            hovertemplate=f"%{{customdata}}<br>{cost.words}: %{{x:.4g}}<br>{metric.words}: %{{y:.{metric.digits}f}}"
            "<extra></extra>",
            legendgroup=arm,
            showlegend=is_own,
        )

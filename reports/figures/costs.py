"""Figures of test scores against each cost of a net."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from reports.analysis.costs import ScoredNet, find_cost_front, score_nets
from reports.figures.style import (
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    line_style,
    make_setting_axis,
    new_figure,
    round_values,
)
from reports.format.metrics import Metric
from reports.load import StudyRecords
from study.trial import Direction

AXES = (
    ("parameters", "parameters", 1.0),
    ("macs", "multiply-accumulates of one input", 1.0),
    ("latency_seconds", "latency of one input, ms", 1000.0),
)
"""Key in study.json, label and factor of each axis of costs."""

MIN_LOG_RATIO = 10
"""Ratio of the largest cost to the smallest from which on the axis is logarithmic."""


def draw_costs(records: StudyRecords) -> list[ReportFigure]:
    """Draw the test metric against each cost in which nets differ; without figures where only sizes are recorded."""
    nets = score_nets(records)
    if not any(one.net.get_cost("macs") for one in nets):
        return []
    metric, direction = records.get_metric(records.test_metric), records.get_direction(records.test_metric)
    figures = []
    for key, label, factor in AXES:
        known = [one for one in nets if one.net.get_cost(key)]
        if len({one.net.get_cost(key) for one in known}) > 1:
            figures.append(draw_cost(known, key, label, factor, metric, direction))
    return figures


def draw_cost(
    nets: Sequence[ScoredNet], key: str, label: str, factor: float, metric: Metric, direction: Direction
) -> ReportFigure:
    """Draw a mark per cell in its arm's colour, the teacher as a star, and the Pareto front as a stepped line."""
    arms = list(dict.fromkeys(one.arm for one in nets))
    figure = new_figure(label, metric.label, 260 + 20 * len(arms))
    figure.update_xaxes(showgrid=True)
    front = find_cost_front(nets, key, direction)
    figure.add_scatter(
        x=_scale_costs(front, key, factor),
        y=round_values(one.score for one in front),
        mode="lines",
        name="no other is better and cheaper",
        # stepped, since between two nets the cheaper one is the best that fits
        line={"color": GREY, "width": 1.5, "shape": "hv", "dash": "2px,3px"},
        hoverinfo="skip",
    )
    for arm in arms:
        _draw_arm(figure, [one for one in nets if one.arm == arm], key, factor, metric)
    costs = [one.net.get_cost(key) or 1.0 for one in nets]
    figure.update_xaxes(make_setting_axis(costs, logarithmic=max(costs) / min(costs) > MIN_LOG_RATIO))
    return ReportFigure(f"cost-{key}", f"{metric.words} against {label.split(',')[0]}", "", figure, small=True)


def _draw_arm(figure: go.Figure, nets: Sequence[ScoredNet], key: str, factor: float, metric: Metric) -> None:
    arm, star = nets[0].arm, {"color": PALETTE[4], "size": 14, "symbol": "star"}
    cost = "%{x:.4g}" if key == "latency_seconds" else "%{x:.4s}"  # the label of latency already has a prefix: ms
    figure.add_scatter(
        x=_scale_costs(nets, key, factor),
        y=round_values(one.score for one in nets),
        mode="markers",
        name=escape_plotly(arm) if arm else "teacher",
        marker={"color": line_style(nets[0].position).colour, "size": 9} if arm else star,
        error_y={"type": "data", "array": round_values(one.half_width for one in nets), "thickness": 1, "width": 3},
        customdata=[escape_plotly(f"{one.net.name}{f' / {arm}' if arm else ''}", 80) for one in nets],
        hovertemplate=f"%{{customdata}}<br>{cost}<br>{metric.words}: %{{y:.{metric.digits}f}}<extra></extra>",
    )


def _scale_costs(nets: Sequence[ScoredNet], key: str, factor: float) -> list[float | None]:
    return round_values((one.net.get_cost(key) or 0.0) * factor for one in nets)

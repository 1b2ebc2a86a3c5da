"""The figure of an ablation: the score on validation after each changed setting."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.analysis.ablation import Step, measure_path
from reports.figures.style import BEST, GREY, PALETTE, ReportFigure, escape_plotly, new_figure, round_values
from reports.format.metrics import Metric
from reports.load import StudyRecords


def draw_path(records: StudyRecords, student: str) -> ReportFigure | None:
    """Draw the path from published to searched settings; None if the student's arms form none."""
    steps = measure_path(records, student)
    if not steps:
        return None
    metric, lower = records.get_metric(records.metric), records.get_direction(records.metric) == "min"
    return ReportFigure(
        "ablation",
        f"{student}: from {steps[0].arm} to searched settings",
        "Mean over seeds on validation data after each changed setting, from top to bottom, with its 95 % t interval; "
        f"values further {'left' if lower else 'right'} are better. The number is the paired change by this step.",
        plot_path(steps, metric),
    )


def plot_path(steps: tuple[Step, ...], metric: Metric) -> go.Figure:
    """Draw one row per step, the first on top: its mean, its interval, its name and its change."""
    figure = new_figure(metric.label, "", 90 + 52 * len(steps), showlegend=False)
    figure.update_yaxes(range=[-0.5, len(steps) - 0.3], showgrid=False, showticklabels=False)
    figure.update_xaxes(showgrid=True)
    lines = list(range(len(steps)))[::-1]
    figure.add_scatter(
        x=round_values(step.score.mean * metric.factor for step in steps),
        y=lines,
        mode="lines+markers",
        name="mean over seeds",
        line={"color": GREY, "width": 1.2, "dash": "2px,3px"},
        marker={"size": 11, "symbol": "diamond", "color": [PALETTE[0]] * (len(steps) - 1) + [BEST]},
        customdata=[escape_plotly(step.arm, 80) for step in steps],
        error_x={
            "array": round_values(step.score.half_width * metric.factor for step in steps),
            **{"thickness": 2, "width": 6, "color": GREY},
        },
        hovertemplate=f"%{{customdata}}: %{{x:.{metric.digits}f}}<extra></extra>",
    )
    label = {"x": 0, "xref": "paper", "xanchor": "left", "yshift": 19, "showarrow": False}
    for step, line in zip(steps, lines, strict=True):
        change = f": {metric.format_signed(step.change.difference)}" if step.change else ""
        figure.add_annotation(text=f"{escape_plotly(step.arm, 44)}{change}", y=line, **label)
    return figure

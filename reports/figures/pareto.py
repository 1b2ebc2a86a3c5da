"""Pareto fronts of a search with several objectives, and their confirmed points on test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.analysis.comparison import Comparison
from reports.analysis.front import FrontPoint
from reports.analysis.search import find_best_trial, list_objectives, mark_front, sample_evenly
from reports.figures.style import (
    BEST,
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    line_style,
    new_figure,
    round_values,
    with_alpha,
)
from reports.format.values import format_params
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

MAX_DOMINATED = 1000
"""Maximum points off the front; of more, an even sample is drawn to keep the page small."""


def draw_fronts(records: StudyRecords, cell: Cell) -> list[ReportFigure]:
    """Draw the deciding objective against each further one; empty for one objective or before the first trial."""
    data, objectives = collect_front(records, cell)
    if data.empty or len(objectives) < 2:
        return []
    best = find_best_trial(records, cell)
    chosen = {int(best["number"])} if best is not None else set()
    if cell.front > 1:
        runs = records.confirmed_points[records.confirmed_points["cell"] == cell.name]
        chosen |= set(data.loc[data["front"] & data["params"].isin(runs["params"]), "number"].astype(int))
    return [plot_front(records, data, objectives, further, cell, chosen) for further in objectives[1:]]


def collect_front(records: StudyRecords, cell: Cell) -> tuple[pd.DataFrame, list[str]]:
    """Return number, params, each objective (in display units) and `front` per complete trial, and the objectives."""
    objectives, trials = list_objectives(records), mark_front(records, cell)
    if trials.empty:
        return pd.DataFrame(), objectives
    data = trials[["number", "params", *objectives, "front"]].dropna(subset=objectives)
    for name in objectives:
        data[name] = data[name].astype(float) * records.get_metric(name).factor
    return data.reset_index(drop=True), objectives


def plot_front(
    records: StudyRecords, data: pd.DataFrame, objectives: list[str], further: str, cell: Cell, chosen: set[int]
) -> ReportFigure:
    """Draw all complete trials; those on the front are joined, the confirmed one is marked."""
    across, up = records.get_metric(further), records.get_metric(objectives[0])
    figure = new_figure(across.label, up.label, 360)
    figure.update_xaxes(showgrid=True)
    front = data[data["front"]].sort_values([further, objectives[0]])
    beaten = data[~data["front"]]
    shown = sample_evenly(beaten, MAX_DOMINATED)
    open_circle = {"color": with_alpha(GREY, 0.8), "size": 7, "symbol": "circle-open"}
    # the front of more objectives is no curve in this plane
    joined = "lines+markers" if len(objectives) == 2 else "markers"
    star = {"color": BEST, "size": 15, "symbol": "star"}
    # between two trials only the worse value of both is attained
    shape = "hv" if records.get_direction(further) == "min" else "vh"
    confirmed = "confirmed: best by the first objective" if cell.front == 1 else "confirmed"
    parts = (
        (shown, "others", "markers", open_circle),
        (front, "Pareto front", joined, {"color": PALETTE[0], "size": 9}),
        (data[data["number"].isin(chosen)], confirmed, "markers", star),
    )
    for rows, name, mode, marker in parts:
        if len(rows):
            figure.add_scatter(x=round_values(rows[further]), y=round_values(rows[objectives[0]]), mode=mode, name=name)
            figure.data[-1].update(marker=marker, customdata=[_describe_trial(row) for row in rows.itertuples()])
    figure.update_traces(
        line={"color": PALETTE[0], "width": 1.5, "shape": shape},
        hovertemplate=f"%{{customdata}}<br>{across.words}: %{{x:.{across.digits}f}}<br>"
        f"{up.words}: %{{y:.{up.digits}f}}<extra></extra>",
    )
    drawn = "" if len(shown) == len(beaten) else f" {len(shown)} of {len(beaten)} others are drawn."
    return ReportFigure(
        f"front-{across.bare}",
        f"{cell.name}: {up.words} against {across.words}",
        f"{len(data)} complete trials. {len(front)} are on the Pareto front: no other is better in every objective."
        f"{drawn}",
        figure,
    )


def _describe_trial(row: Any) -> str:
    listed = format_params(parse_json_object(row.params))
    return escape_plotly(f"trial {row.number} ({listed})", 200)


# -- on test -----------------------------------------------------------------------------------------------------------


def draw_tested_fronts(records: StudyRecords, comparison: Comparison) -> Iterator[ReportFigure]:
    """Yield a figure for each further objective: every arm's confirmed points on test, and its validation front."""
    for name in list_objectives(records)[1:]:
        known = [point for point in comparison.points if name in point.costs]
        if known:
            yield _draw_tested(records, comparison, name, known)


def _draw_tested(
    records: StudyRecords, comparison: Comparison, name: str, points: Sequence[FrontPoint]
) -> ReportFigure:
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
    figure.add_scatter(
        x=round_values(front[name]),
        y=round_values(front[objectives[0]]),
        mode="lines+markers",
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
        figure.add_scatter(
            x=round_values(one.costs[name] * cost.factor for one in shown),
            y=round_values(one.mean.mean * metric.factor for one in shown),
            mode="lines+markers" if is_own else "markers",
            name=escape_plotly(arm) if is_own else f"{escape_plotly(arm)}, for comparison",
            line={"color": style.colour, "width": 1.5},
            marker={"color": style.colour, "size": 9, "symbol": "circle" if is_own else "circle-open"},
            error_y={
                "array": round_values(one.mean.half_width * metric.factor for one in shown),
                **{"type": "data", "thickness": 1, "width": 3},
            },
            customdata=[escape_plotly(f"{arm}: {format_params(one.params)}", 200) for one in shown],
            hovertemplate=f"%{{customdata}}<br>{cost.words}: %{{x:.4g}}<br>{metric.words}: %{{y:.{metric.digits}f}}"
            "<extra></extra>",
            legendgroup=arm,
            showlegend=is_own,
        )

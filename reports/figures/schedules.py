"""Scheduled values over epochs in the search trials of a cell: the best trial, and the settings it is compared with."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.analysis.search import find_published_trial, read_schedules, sample_evenly
from reports.figures.style import (
    BEST,
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    join_lines,
    make_integer_ticks,
    new_figure,
    round_values,
    with_alpha,
)
from reports.load import Cell, StudyRecords

MAX_OTHERS = 40
"""Maximum other trials drawn, an even sample over the search."""
RECIPE_SCHEDULES = ("learning_rate",)
"""Schedules of the recipe; all others are of the loss."""


def draw_schedules(records: StudyRecords, best: pd.Series, cell: Cell) -> list[ReportFigure]:
    """Draw one small figure per scheduled value: the best trial and the published settings in colour."""
    data = collect_schedules(records, cell, str(best["trial_id"]))
    published = collect_published(records, cell)
    drawn = []
    for index, (name, rows) in enumerate(data.groupby("schedule", sort=False)):
        figure = new_figure("epoch", escape_plotly(str(name)), 280)
        figure.update_xaxes(**make_integer_ticks(int(rows["epoch"].max())))
        _plot_others(figure, rows[~rows["best"]])
        _plot_line(figure, rows[rows["best"]], "best trial", BEST, "solid")
        _plot_line(figure, published[published["schedule"] == name], "published", PALETTE[0], "7px,3px")
        drawn.append(ReportFigure(f"schedule{index}", f"{cell.name}: {name} of the best trial", "", figure, small=True))
    return drawn


def collect_published(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return schedule, epoch and value of the cell's first point, by the longest trial of it; empty without one.

    Without the schedules of a searched recipe, which a first point of the loss leaves to the sampler.
    """
    trial = find_published_trial(records, cell)
    data = read_schedules(records.epochs, [str(trial["trial_id"])] if trial is not None else [])
    return data[~data["schedule"].isin(RECIPE_SCHEDULES)] if cell.searches_recipe else data


def collect_schedules(records: StudyRecords, cell: Cell, best_id: str) -> pd.DataFrame:
    """Return schedule, number, epoch, value and best per schedule, trial and epoch, for the best trial and a sample."""
    trials = records.get_search_trials(cell)[["trial_id", "number"]]
    others = sample_evenly(trials[trials["trial_id"] != best_id], MAX_OTHERS)
    chosen = pd.concat([trials[trials["trial_id"] == best_id], others])
    data = read_schedules(records.epochs, chosen["trial_id"]).merge(chosen, on="trial_id")
    return data.assign(best=data["trial_id"] == best_id).sort_values(["number", "epoch"], kind="stable")


def _plot_line(figure: go.Figure, rows: pd.DataFrame, name: str, colour: str, dash: str) -> None:
    if rows.empty:
        return
    figure.add_scatter(
        x=rows["epoch"].tolist(),
        y=round_values(rows["value"]),
        mode="lines",
        name=name,
        line={"color": colour, "width": 2.5, "shape": "hvh", "dash": dash},
        hovertemplate=f"{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def _plot_others(figure: go.Figure, rows: pd.DataFrame) -> None:
    """Draw all other trials; equal schedules are one line."""
    lines: dict[tuple[float | None, ...], tuple[list[int], Any]] = {}
    for number, one in rows.groupby("number", sort=False):
        lines.setdefault(tuple(round_values(one["value"])), (one["epoch"].tolist(), number))
    if lines:
        figure.add_scatter(
            **join_lines((epochs, values, number) for values, (epochs, number) in lines.items()),
            mode="lines",
            name="other trials",
            line={"color": with_alpha(GREY, 0.55), "width": 1, "shape": "hvh"},
            hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4g}<extra></extra>",
        )

"""Contours of the score over pairs of searched settings, with the trials as dots.

The surface is a local mean of the complete trials' scores, with Gaussian weights by the distance in both settings, each
scaled to its range. Interpolation through every trial, as Optuna draws it, would show the noise of single trials and of
the settings that are not on the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from reports.figures.style import BEST, GREY, ReportFigure, escape_plotly, make_setting_axis, new_figure, round_values
from reports.format.metrics import Metric
from reports.frames import parse_json_object

Array = npt.NDArray[np.float64]

MIN_TRIALS = 10
"""Minimum complete trials: fewer show no surface."""
MAX_PAIRS = 3
"""Pairs drawn: those of the three most important settings."""
CELLS = 40
"""Grid points on each axis."""
WIDTH = 0.12
"""Standard deviation of the weights, as a share of a setting's range."""
REACH = 2.0
"""Distance to the nearest complete trial, in standard deviations, above which the surface is left blank."""
COLOURS = ("#0b3c5d", "#0072B2", "#56B4E9", "#cfe8f7")
"""From low to high scores; blue alone, as dots of other colours lie on it."""


def draw_contours(
    trials: pd.DataFrame, names: Sequence[str], logarithmic: set[str], metric: Metric, title: str, lower: bool
) -> list[ReportFigure]:
    """Draw the score over each pair of the first numeric settings of `names`; empty below MIN_TRIALS complete trials.

    `trials` has number, state, params and score (in display units) per search trial; `lower` scores are better or not.
    """
    params = pd.DataFrame([parse_json_object(text) for text in trials["params"]], index=trials.index)
    numeric = [name for name in names if name in params and _is_numeric(params[name])][:MAX_PAIRS]
    table = pd.concat([trials[["number", "state", "score"]], params[numeric]], axis="columns").dropna()
    drawn: list[ReportFigure] = []
    for across, up in combinations(numeric, 2):
        complete = table[table["state"] == "COMPLETE"]
        if len(complete) >= MIN_TRIALS and min(complete[across].nunique(), complete[up].nunique()) > 2:
            data = table[["number", "state", across, up, "score"]]
            figure = plot_contour(data, {name: name in logarithmic for name in (across, up)}, metric, lower)
            name = f"contour-{len(drawn)}"
            drawn.append(ReportFigure(name, f"{title}: {across} and {up}", "", figure, small=True, data=data))
    return drawn


def plot_contour(data: pd.DataFrame, logarithmic: dict[str, bool], metric: Metric, lower: bool) -> go.Figure:
    """Draw the surface, a dot per trial, and a star at the best complete one."""
    (across, up), complete = logarithmic, data[data["state"] == "COMPLETE"]
    figure = new_figure(escape_plotly(across), escape_plotly(up), 320, showlegend=False)
    for update, name in ((figure.update_xaxes, across), (figure.update_yaxes, up)):
        update(**make_setting_axis(data[name].tolist(), logarithmic[name]), showgrid=False)
    x, y = (make_grid(data[name], logarithmic[name]) for name in logarithmic)
    places = [_to_unit(data[name], complete[name], logarithmic[name]) for name in logarithmic]
    surface = smooth(np.column_stack(places), complete["score"].to_numpy(dtype=float))
    colours = COLOURS[::-1] if lower else COLOURS
    figure.add_contour(
        x=round_values(x),
        y=round_values(y),
        z=[round_values(row) for row in surface],
        name="local mean",
        colorscale=[[at / (len(colours) - 1), colour] for at, colour in enumerate(colours)],
        contours={"coloring": "fill", "showlines": False},
        colorbar={"title": {"text": metric.label, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        hoverinfo="skip",
    )
    _plot_dots(figure, data, metric, lower)
    return figure


def smooth(places: Array, scores: Array) -> Array:
    """Return the local mean at each point of a grid over the unit square, (CELLS, CELLS); NaN far from all trials.

    `places` (N, 2) are the trials' positions in the unit square, `scores` (N,) their scores; rows of the result go up
    the second coordinate.
    """
    axis = np.linspace(0.0, 1.0, CELLS)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    squares = ((grid[:, :, None, :] - places) ** 2).sum(axis=-1) / WIDTH**2  # (CELLS, CELLS, N)
    weights = np.exp(-0.5 * squares)
    means = (weights @ scores) / np.maximum(weights.sum(axis=-1), np.finfo(float).tiny)
    return np.where(squares.min(axis=-1) <= REACH**2, means, np.nan)


def make_grid(values: pd.Series, logarithmic: bool) -> Array:
    """Return CELLS points from the lowest to the highest value, even on the setting's scale."""
    space = np.geomspace if logarithmic else np.linspace
    return space(float(values.min()), float(values.max()), CELLS)


def _to_unit(every: pd.Series, chosen: pd.Series, logarithmic: bool) -> Array:
    """Return the positions of `chosen` between the lowest and highest of `every`, from 0 to 1."""
    low, high = float(every.min()), float(every.max())
    values = chosen.to_numpy(dtype=float)
    if logarithmic:
        low, high, values = np.log(low), np.log(high), np.log(values)
    return (values - low) / (high - low)


def _plot_dots(figure: go.Figure, data: pd.DataFrame, metric: Metric, lower: bool) -> None:
    complete = data["state"] == "COMPLETE"
    scores = data["score"][complete]
    best = data.loc[[scores.idxmin() if lower else scores.idxmax()]]
    open_dot = {"color": GREY, "size": 6, "symbol": "circle-open"}
    dot = {"color": "#ffffff", "size": 6, "line": {"color": "#1b1f24", "width": 1}}
    star = {"color": BEST, "size": 14, "symbol": "star", "line": {"color": "#ffffff", "width": 1}}
    parts = ((data[~complete], "stopped", open_dot), (data[complete], "complete", dot), (best, "best", star))
    across, up = data.columns[2:4]
    score = f"%{{x}}, %{{y}}: %{{customdata[1]:.{metric.digits}f}}<extra></extra>"
    for rows, name, marker in parts:
        figure.add_scatter(
            x=round_values(rows[across]),
            y=round_values(rows[up]),
            mode="markers",
            name=name,
            marker=marker,
            customdata=rows[["number", "score"]].to_numpy().tolist(),
            hovertemplate=f"trial %{{customdata[0]}}, {name}<br>{score}",
        )


def _is_numeric(values: pd.Series) -> bool:
    given: list[Any] = values.dropna().tolist()
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(given) and len(set(numbers)) > 1

"""Parallel coordinates of the search trials, with horizontal scales so that names fit any screen.

Each setting is a scale from its lowest to its highest value, each trial a path from the top to its score at the bottom.
A stopped trial's score comes after fewer epochs, so its path ends above the score's scale. The paths are plain lines:
plotly's own trace type needs WebGL and compiles code at run time, which the page's security policy forbids.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from reports.analysis.search import sample_evenly
from reports.figures.style import (
    BEST,
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    join_lines,
    make_setting_axis,
    new_figure,
    with_alpha,
)
from reports.format.metrics import Metric
from reports.format.values import format_number, format_value, shorten
from reports.frames import parse_json_object

MAX_PATHS = 100
"""Maximum trials drawn: a third are the best ones, the others an even sample."""
MAX_SETTINGS = 12
"""Maximum settings drawn. Larger spaces have conditional groups, which the figures of single settings show better."""
LABEL_WIDTH = 12
"""Characters per line of a setting's name."""
THIRDS = ("worst third", "middle third", "best third")


@dataclass(frozen=True)
class Scale:
    """The scale of one setting or of the score."""

    name: str
    places: tuple[float | None, ...]
    """Where each trial crosses the scale, from 0 to 1; None for a trial without the setting."""
    marks: tuple[tuple[float, str], ...]
    """Position and text of the labels below."""


def draw_parallel_coordinates(
    trials: pd.DataFrame, names: Sequence[str], logarithmic: set[str], metric: Metric, title: str, lower: bool
) -> ReportFigure | None:
    """Draw a cell's trials with their scores; None for fewer than two settings or three scores."""
    chosen = sample_trials(trials, lower)
    names = list(names)[:MAX_SETTINGS]
    if len(names) < 2 or (chosen["third"] != "").sum() < len(THIRDS):
        return None
    lines = [line for name in names if (line := make_setting_scale(chosen, name, name in logarithmic))]
    lines.append(make_score_scale(chosen, metric))
    return plot_parallel_coordinates(chosen, lines, len(trials), title, lower)


def sample_trials(trials: pd.DataFrame, lower: bool) -> pd.DataFrame:
    """Return at most MAX_PATHS complete or stopped trials, best last; `third` ranks a complete trial's score."""
    known = trials[trials["state"].isin(["COMPLETE", "PRUNED"])]
    complete = known[(known["state"] == "COMPLETE") & known["score"].notna()]
    complete = complete.sort_values("score", ascending=not lower, kind="stable")
    thirds = np.arange(len(complete)) * len(THIRDS) // max(1, len(complete))
    ranked = complete.assign(third=[THIRDS[third] for third in thirds])
    others = known.drop(complete.index).assign(third="")
    every = pd.concat([others, ranked])
    best = every.tail(MAX_PATHS // 3)
    rest = every.head(len(every) - len(best))
    return pd.concat([sample_evenly(rest, MAX_PATHS - len(best)), best]).reset_index(drop=True)


def make_setting_scale(trials: pd.DataFrame, name: str, logarithmic: bool) -> Scale | None:
    """Return the scale of a setting; None if no trial has it."""
    given = [parse_json_object(text).get(name) for text in trials["params"]]
    had = [value for value in given if value is not None]
    if not had:
        return None
    kind = make_setting_axis(had, logarithmic)["type"]
    if kind == "category":
        words = sorted({format_value(value) for value in had})
        at = {word: (place + 0.5) / len(words) for place, word in enumerate(words)}
        places = tuple(None if value is None else at[format_value(value)] for value in given)
        return Scale(name, places, tuple((place, word) for word, place in at.items()))
    scaled = [None if value is None else math.log(value) if kind == "log" else float(value) for value in given]
    ends = ((0.0, format_value(min(had))), (1.0, format_value(max(had))))
    return Scale(name, _scale_to_unit(scaled), ends)


def make_score_scale(trials: pd.DataFrame, metric: Metric) -> Scale:
    """Return the scale of the complete trials' scores, from the lowest to the highest."""
    scores = [score if third else None for score, third in zip(trials["score"], trials["third"], strict=True)]
    known = [score for score in scores if score is not None]
    low, high = format_number(min(known), metric.digits), format_number(max(known), metric.digits)
    return Scale(metric.label, _scale_to_unit(scores), ((0.0, low), (1.0, high)))


def plot_parallel_coordinates(
    trials: pd.DataFrame, lines: list[Scale], total: int, title: str, lower: bool
) -> ReportFigure:
    """Draw the paths, the best trial's last and in colour, and the scales on top of them."""
    figure = new_figure("", "", 70 + 66 * len(lines))
    figure.update_xaxes(range=[-0.02, 1.02], showline=False, showticklabels=False)
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(len(lines))),
        "ticktext": [_break_lines(x.name) for x in lines],
    }
    figure.update_yaxes(**ticks, range=[len(lines) - 0.55, -0.35], showgrid=False, showline=False)
    stopped = trials["third"] == ""
    _plot_paths(figure, trials[stopped], lines, "stopped", {"color": with_alpha(GREY, 0.45), "width": 1})
    for third, alpha in zip(THIRDS, (0.38, 0.6, 0.95), strict=True):
        among = trials[(trials["third"] == third) & (trials.index != trials.index[-1])]
        _plot_paths(figure, among, lines, third, {"color": with_alpha(PALETTE[0], alpha), "width": 1.4})
    _plot_paths(figure, trials.tail(1), lines, "best", {"color": BEST, "width": 3})
    for place, line in enumerate(lines):
        _plot_scale(figure, line, place)
    drawn = f"{total} trials." if len(trials) == total else f"{len(trials)} of {total} trials are drawn."
    side = "left" if lower else "right"
    return ReportFigure(
        "parallel",
        title,
        f"{drawn} Each path is one trial, through its settings to its score; better scores are on the {side}. Paths of "
        "stopped trials end above the score, which comes after fewer epochs. Failed trials are left out.",
        figure,
        data=_list_values(trials, [line.name for line in lines[:-1]]),
    )


def _list_values(trials: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return number, state, settings and score of the trials drawn."""
    given = pd.DataFrame([parse_json_object(text) for text in trials["params"]], index=trials.index)
    return pd.concat([trials[["number", "state"]], given.reindex(columns=list(names)), trials["score"]], axis="columns")


def _scale_to_unit(numbers: Sequence[float | None]) -> tuple[float | None, ...]:
    known = [value for value in numbers if value is not None]
    low, wide = min(known), max(known) - min(known)
    return tuple(None if value is None else (value - low) / wide if wide else 0.5 for value in numbers)


def _plot_paths(figure: go.Figure, trials: pd.DataFrame, lines: list[Scale], name: str, style: dict[str, Any]) -> None:
    paths = []
    for trial, number in zip(trials.index, trials["number"], strict=True):
        crossed = [(line.places[trial], float(place)) for place, line in enumerate(lines)]
        known = [(round(across, 4), place) for across, place in crossed if across is not None]
        paths.append(([across for across, _ in known], [place for _, place in known], int(number)))
    if paths:
        hover = f"trial %{{customdata}}, {name}<extra></extra>"
        figure.add_scatter(**join_lines(paths), mode="lines", name=name, line=style, hovertemplate=hover)


def _plot_scale(figure: go.Figure, line: Scale, place: int) -> None:
    figure.add_scatter(x=[0, 1], y=[place, place], mode="lines", line={"color": GREY, "width": 1.5})
    figure.data[-1].update(showlegend=False, hoverinfo="skip")
    for across, text in line.marks:
        anchor = "left" if across == 0 else "right" if across == 1 else "center"
        figure.add_annotation(
            text=escape_plotly(text, 18),
            x=across,
            y=place,
            xanchor=anchor,
            yshift=-10,
            showarrow=False,
            font={"size": 11},
        )


def _break_lines(name: str) -> str:
    """Break a name into short lines, after dots and between words."""
    lines = [""]
    for part in re.findall(r"[^. ]+[. ]*|[. ]+", shorten(name, 60)):
        if lines[-1] and len(lines[-1]) + len(part.strip()) > LABEL_WIDTH:
            lines.append("")
        lines[-1] += part
    return "<br>".join(escape_plotly(line) for line in lines)

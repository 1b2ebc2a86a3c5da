"""Colours, layout and text of all figures.

Backgrounds are transparent, and page.js sets the colour of text, because it knows the reader's theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.format.values import shorten

# Okabe and Ito 2008, "Color Universal Design", without yellow and black, which vanish on a light or dark background.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "7px,3px", "2px,3px", "9px,3px,2px,3px", "14px,4px")
GREY = "#8a8f98"
BEST = "#D55E00"


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its name, title and caption. Small ones share a row of a grid.

    `data` is what its CSV holds where the places of the marks say little, such as paths across several scales; without
    it the CSV holds the points of the marks (figures/files.py).
    """

    name: str
    title: str
    caption: str
    figure: go.Figure
    small: bool = False
    data: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    @property
    def json(self) -> str:
        """Plotly's JSON, safe inside a script element."""
        return escape_script(self.figure.to_json())


@dataclass(frozen=True)
class LineStyle:
    """Colour and dash of an arm, the same in every figure of a report."""

    colour: str
    dash: str


def line_style(position: int) -> LineStyle:
    """Return the style of the arm at `position` in the study; dashes keep overlapping lines apart."""
    return LineStyle(PALETTE[position % len(PALETTE)], DASHES[position % len(DASHES)])


def with_alpha(colour: str, alpha: float) -> str:
    """Return a #rrggbb colour as rgba."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def escape_plotly(text: str, length: int = 40) -> str:
    """Return `text` such that plotly prints it literally: without tags or %{…} of hover templates, shortened."""
    return html.escape(shorten(text, length)).replace("%{", "%&#123;")


def new_figure(x_title: str, y_title: str, height: int = 380, **layout: Any) -> go.Figure:
    """Return an empty figure in the report's style; `height` is in pixels."""
    axis = {"automargin": True, "zeroline": False, "ticks": "", "fixedrange": True}
    # all at once: Plotly checks each update again, which took a third of a report's time
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13},
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"align": "left"},
            "xaxis": {**axis, "showgrid": False, "showline": True, "title": {"standoff": 8, "text": x_title}},
            "yaxis": {**axis, "showgrid": True, "title": {"standoff": 8, "text": y_title}},
            **layout,
        }
    )


def make_integer_ticks(last: int) -> dict[str, Any]:
    """Return the ticks of an integer axis from 0 to `last`: about ten at most, at round numbers."""
    step = next((s * 10**power for power in range(9) for s in (1, 2, 5) if last / (s * 10**power) <= 10), 10**9)
    return {"tick0": 0, "dtick": step, "tickformat": "d"}


def escape_script(text: str) -> str:
    """Return the JSON `text` with the characters escaped that could end a script element or open a comment in it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def make_setting_axis(settings: Sequence[Any], logarithmic: bool) -> dict[str, Any]:
    """Return the axis of a searched setting: linear, logarithmic, or categorical if a value is not a number."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings):
        return {"type": "category", "categoryorder": "category ascending", "range": [-0.5, len(set(settings)) - 0.5]}
    if logarithmic and min(settings) > 0:
        return {"type": "log", "dtick": "D2" if max(settings) / min(settings) < 300 else 1}
    return {"type": "linear", "nticks": 6}


def join_lines(lines: Iterable[tuple[Sequence[Any], Sequence[Any], Any]]) -> dict[str, list[Any]]:
    """Return x, y and customdata of one trace for many lines, each with its label, with gaps between them.

    One trace per line would take many times as long to draw.
    """
    x: list[Any] = []
    y: list[Any] = []
    labels: list[Any] = []
    for across, up, label in lines:
        x += [*across, None]
        y += [*up, None]
        labels += [label] * (len(across) + 1)
    return {"x": x, "y": y, "customdata": labels}


def round_values(values: Any) -> list[float | None]:
    """Round to six significant digits, enough for any screen; None and NaN become gaps."""
    return [float(f"{value:.6g}") if value is not None and math.isfinite(value) else None for value in values]

"""What all figures share: colours, layout, and turning user-given names into plain plotly text.

Backgrounds are transparent and text colours are set by the page (page.html), which knows the reader's theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from reports.format.values import shorten

# Okabe and Ito 2008, "Color Universal Design"; without yellow and black, which vanish on light and dark ground.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "7px,3px", "2px,3px", "9px,3px,2px,3px", "14px,4px")
GREY = "#8a8f98"
BEST = "#D55E00"


@dataclass(frozen=True)
class ReportFigure:
    """A figure with the words that go with it. `small` ones stand beside each other."""

    name: str
    title: str
    caption: str
    figure: go.Figure
    small: bool = False

    @property
    def json(self) -> str:
        """Plotly's JSON, ready to stand in a script element."""
        return escape_script(self.figure.to_json())


@dataclass(frozen=True)
class LineStyle:
    """How an arm is drawn, the same in every figure of a report."""

    colour: str
    dash: str


def line_style(position: int) -> LineStyle:
    """By position in the study; lines that lie on each other stay apart by their dashes."""
    return LineStyle(PALETTE[position % len(PALETTE)], DASHES[position % len(DASHES)])


def with_alpha(colour: str, alpha: float) -> str:
    """A #rrggbb colour as rgba."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def escape_plotly(text: str, length: int = 40) -> str:
    """A name as text that plotly shows as it is: no tags, no %{…} of its hover templates, not too long."""
    return html.escape(shorten(text, length)).replace("%{", "%&#123;")


def new_figure(x_title: str, y_title: str, height: int = 380, **layout: Any) -> go.Figure:
    """An empty figure in the report's style."""
    figure = go.Figure(layout={"template": "none", "height": height, **layout})
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13},
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    axis = {"automargin": True, "zeroline": False, "ticks": "", "title": {"standoff": 8}, "fixedrange": True}
    figure.update_xaxes(**axis, showgrid=False, showline=True).update_yaxes(**axis, showgrid=True)
    figure.update_xaxes(title_text=x_title).update_yaxes(title_text=y_title)
    return figure


def make_integer_ticks(last: int) -> dict[str, Any]:
    """Ticks of an axis of whole numbers: at most about ten, at round ones."""
    step = next((s * 10**power for power in range(9) for s in (1, 2, 5) if last / (s * 10**power) <= 10), 10**9)
    return {"tick0": 0, "dtick": step, "tickformat": "d"}


def escape_script(text: str) -> str:
    """The same JSON without a sign that could end a script element or begin a comment in it."""
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def make_setting_axis(settings: Sequence[Any], logarithmic: bool) -> dict[str, Any]:
    """The axis of a searched setting: linear, logarithmic, or by category for what is not a number."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings):
        return {"type": "category", "categoryorder": "category ascending", "range": [-0.5, len(set(settings)) - 0.5]}
    if logarithmic and min(settings) > 0:
        return {"type": "log", "dtick": "D2" if max(settings) / min(settings) < 300 else 1}
    return {"type": "linear", "nticks": 6}


def round_values(values: Any) -> list[float | None]:
    """Six significant digits, enough for any screen; what was not measured becomes a gap."""
    return [float(f"{value:.6g}") if value is not None and math.isfinite(value) else None for value in values]

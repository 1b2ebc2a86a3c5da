"""Files of the page's figures: their data as CSV, and images for papers and slides (`reports.build … --figures svg`).

A CSV file has one row per point, as it is drawn. Plotly renders images with kaleido in a local Chrome or Chromium,
offline; nothing else needs either of the two. Their colours are those of the printed page.
"""

from __future__ import annotations

import csv
import html
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io

from reports.figures.style import ReportFigure
from reports.format.table import make_file_stems
from study.errors import InputError

IMAGE_FORMATS = ("svg", "png")
WIDE_PIXELS, SMALL_PIXELS = 760, 380
TEXT, GRID, AXIS = "#1b1f24", "#e4e7eb", "#a8b0b9"
"""The light theme of page.js."""

Row = dict[str, Any]


def write_data(drawn: Sequence[ReportFigure], folder: Path, stems: Mapping[str, str]) -> None:
    """Write each figure's data as `folder`/<stem>.csv; `stems` holds the file stem of each title."""
    folder.mkdir(exist_ok=True)
    for one in drawn:
        (folder / f"{stems[one.title]}.csv").write_text(to_csv(one), encoding="utf-8")


def to_csv(one: ReportFigure) -> str:
    """Return the figure's own table if it has one, else the points of its traces."""
    if one.data is not None:
        return one.data.to_csv(index=False, lineterminator="\n")
    rows = [row for trace in one.figure.data for row in list_points(trace, one.figure)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def list_points(trace: Any, figure: go.Figure) -> Iterator[Row]:
    """Yield a trace's points: its name, both coordinates under the axes' titles, the ends of error bars, the label.

    Points without a coordinate are the gaps of a line, and left out.
    """
    x_name, y_name = _to_plain(figure.layout.xaxis.title.text) or "x", _to_plain(figure.layout.yaxis.title.text) or "y"
    name, labels, ends = _to_plain(trace.name), trace.customdata, _list_ends(trace)
    for at, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
        if x is not None and y is not None:
            row = {"series": name, x_name: _to_plain(x), y_name: _to_plain(y)} | (ends[at] if ends else {})
            yield row if labels is None else row | {"label": _to_plain(labels[at])}


def _list_ends(trace: Any) -> list[Row]:
    """Return low and high of each point's error bar; empty for a trace without error bars."""
    for values, bar in ((trace.x, trace.error_x), (trace.y, trace.error_y)):
        if bar.array is not None:
            below = bar.array if bar.arrayminus is None else bar.arrayminus
            return [_add_bar(*numbers) for numbers in zip(values, below, bar.array, strict=True)]
    return []


def _add_bar(value: float, below: float | None, above: float | None) -> Row:
    return {"low": float(f"{value - (below or 0.0):.6g}"), "high": float(f"{value + (above or 0.0):.6g}")}


def _to_plain(value: Any) -> Any:
    """Return text as it is read, without the escapes that plotly needs; numbers as they are."""
    return html.unescape(value) if isinstance(value, str) else value


def write_images(drawn: Sequence[ReportFigure], folder: Path, kind: str) -> list[Path]:
    """Write each figure as `folder`/<title>.`kind`, and return the paths.

    Raises InputError if kaleido or a browser is missing.
    """
    try:
        importlib.import_module("kaleido")
    except ImportError:
        raise InputError(f'figures as {kind} need kaleido: pip install -e ".[figures]"') from None
    folder.mkdir(exist_ok=True)
    stems = make_file_stems([one.title for one in drawn])
    paths = [folder / f"{stems[one.title]}.{kind}" for one in drawn]
    figures = [make_print_copy(one) for one in drawn]
    size = {"width": [one.layout.width for one in figures], "height": [one.layout.height for one in figures]}
    try:
        plotly.io.write_images(figures, paths, format=kind, scale=2 if kind == "png" else 1, **size)
    except RuntimeError as error:  # kaleido raises it both if no browser is found and if it does not start
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"figures as {kind} need Chrome or Chromium, which kaleido could not start ({reason}): install one, "
            "or set BROWSER_PATH to it"
        ) from None
    return paths


def make_print_copy(one: ReportFigure) -> go.Figure:
    """Return a copy of the figure with a white background, the light theme's colours and a fixed width."""
    figure = go.Figure(one.figure)
    figure.update_layout(paper_bgcolor="white", font_color=TEXT, width=SMALL_PIXELS if one.small else WIDE_PIXELS)
    figure.update_layout(margin={"l": 12, "r": 16, "t": 12, "b": 12}, height=figure.layout.height or 380)
    return figure.update_xaxes(gridcolor=GRID, linecolor=AXIS).update_yaxes(gridcolor=GRID, linecolor=AXIS)

"""The data of the page's figures as CSV files: one row per point, as it is drawn."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from reports.figures.style import ReportFigure

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
    x_name, y_name = _get_title(figure.layout.xaxis, "x"), _get_title(figure.layout.yaxis, "y")
    name, labels, ends = _to_plain(trace.name), trace.customdata, _list_ends(trace)
    for at, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
        if x is not None and y is not None:
            row = {"series": name, x_name: _to_plain(x), y_name: _to_plain(y)} | (ends[at] if ends else {})
            yield row if labels is None else row | {"label": _to_plain(labels[at])}


def _get_title(axis: Any, letter: str) -> str:
    return _to_plain(axis.title.text) or letter


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

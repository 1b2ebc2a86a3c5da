"""The dot plot of a comparison of studies: all runs of one student on a common axis, drawn by page/compare.html."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.analysis.cross_study import CellResult, StudentComparison
from reports.figures.style import PALETTE

TICKS = 5
"""Approximate number of ticks on an axis."""


@dataclass(frozen=True)
class DotPlotRow:
    """A cell of one study in the plot; positions are in percent of the axis."""

    arm: str
    study: str
    colour: str
    first: bool
    """Whether it is the first row of its arm."""
    dots: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    """Left end and width of the 95 % interval."""
    text: str


@dataclass(frozen=True)
class DotPlot:
    """All runs of one student on a common axis."""

    title: str
    lines: tuple[DotPlotRow, ...]
    ticks: tuple[tuple[float, str], ...]
    axis: str


def make_dot_plot(student: StudentComparison, labels: Sequence[str]) -> DotPlot | None:
    """Return all comparable runs on one axis; None if fewer than two studies are comparable."""
    rows = [row for row in student.rows if row.mean and not row.incomparable]
    if not any(row.versus is not None for row in rows):
        return None
    metric, spans = rows[0].metric, [_find_range(row) for row in rows]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    margin = 0.04 * (high - low) or 0.01 * abs(high) or 1.0
    low, width = low - margin, high - low + 2 * margin
    lines = tuple(_make_plot_row(row, labels, low, width) for row in rows)
    marks = _make_ticks(low * metric.factor, (low + width) * metric.factor)
    ticks = tuple((100 * (at / metric.factor - low) / width, text) for at, text in marks)
    return DotPlot(f"{student.name}: every run", lines, ticks, metric.label)


def _find_range(row: CellResult) -> tuple[float, float]:
    assert row.mean is not None
    interval = [row.mean.interval.low, row.mean.interval.high] if row.mean.interval else []
    return min([*row.values.values(), *interval]), max([*row.values.values(), *interval])


def _make_plot_row(row: CellResult, labels: Sequence[str], low: float, width: float) -> DotPlotRow:
    assert row.mean is not None
    interval = row.mean.interval
    return DotPlotRow(
        arm=row.arm,
        study=labels[row.study],
        colour=PALETTE[row.study % len(PALETTE)],
        first=row.versus is None,
        dots=tuple(100 * (value - low) / width for value in row.values.values()),
        mean=100 * (row.mean.mean - low) / width,
        interval=(100 * (interval.low - low) / width, 100 * (interval.high - interval.low) / width)
        if interval
        else None,
        text=f"mean {row.metric.format(row.mean.mean)}, {row.mean.n} runs",
    )


def _make_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return positions and texts of about `TICKS` round numbers from `low` to `high`."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    return [(k * step, f"{k * step:.{digits}f}".replace("-", "−")) for k in range(first, math.floor(high / step) + 1)]

"""Test metrics against a swept setting, for studies in which some arms differ by a single number.

The setting is found in study.json: the descriptions of these arms' losses and recipes are equal except for one entry.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from reports.analysis import statistics
from reports.figures.style import (
    BEST,
    GREY,
    LineStyle,
    ReportFigure,
    escape_plotly,
    line_style,
    new_figure,
    round_values,
    with_alpha,
)
from reports.format.metrics import Metric
from reports.format.settings import CLASS_KEYS
from reports.format.values import format_value
from reports.load import Cell, StudyRecords

MIN_ARMS = 3
"""Minimum arms with different numbers; for fewer, the table shows the same."""

CONTROL = LineStyle(GREY, "7px,3px")
"""The level of a control. Levels of scheduled settings have the styles of arms."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """Arms that only differ in the number at `path` of their losses, or of their recipes."""

    path: Path
    fixed: dict[str, float]
    """The number of each arm."""
    others: tuple[str, ...]
    """Arms with a domain or a schedule in its place."""

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class Point:
    """One arm's confirm runs. Without `x` it is drawn as a level: a control, or an arm whose setting is scheduled."""

    arm: str
    x: float | None
    seeds: tuple[float, ...]
    mean: statistics.Mean


def draw_sweep(records: StudyRecords, student: str) -> list[ReportFigure]:
    """Draw the swept setting against each test metric, the one of the verdicts first; empty if nothing is swept."""
    found = find_sweep(records)
    if found is None:
        return []
    names = [name for name in records.confirmed.columns if str(name).startswith("test/")]
    names.sort(key=lambda name: name != records.test_metric)
    data = [(records.get_metric(name), collect_points(records, student, found, name)) for name in names]
    return [
        plot_sweep(points, found, metric, student, records.get_direction(metric.name))
        for metric, points in data
        if sum(point.x is not None for point in points) >= MIN_ARMS
    ]


def find_sweep(records: StudyRecords) -> Sweep | None:
    """Return the setting in which most arms differ, and in nothing else; None if fewer than MIN_ARMS do."""
    listed = records.section("study").get("arms")
    losses = {
        str(arm.get("name")): dict(_walk_leaves(arm.get("loss"))) | dict(_walk_leaves(arm.get("recipe"), ("recipe",)))
        for arm in (listed if isinstance(listed, list) else [])
        if isinstance(arm, dict)
    }
    found: dict[tuple[Path, str], dict[str, float]] = defaultdict(dict)
    for arm, leaves in losses.items():
        for path, value in leaves.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[path, _key_without(leaves, path)][arm] = float(value)
    swept = {key: arms for key, arms in found.items() if len(set(arms.values())) >= MIN_ARMS}
    if not swept:
        return None
    (path, rest), fixed = max(swept.items(), key=lambda item: len(item[1]))
    others = [arm for arm, leaves in losses.items() if arm not in fixed and _key_without(leaves, path) == rest]
    return Sweep(path, fixed, tuple(others))


def collect_points(records: StudyRecords, student: str, found: Sweep, name: str) -> list[Point]:
    """Return one point per arm of the sweep and per arm they are compared with, in the study's order."""
    cells = records.get_cells(student)
    controls = {name for cell in cells if cell.arm in found.fixed for name in cell.versus}
    shown = {*found.fixed, *found.others, *controls}
    points = (_make_point(records, cell, found, name) for cell in cells if cell.arm in shown)
    return [point for point in points if point]


def plot_sweep(points: list[Point], found: Sweep, metric: Metric, student: str, direction: str) -> ReportFigure:
    """Draw means and intervals over the seeds' dots, a line through the fixed settings, and levels as horizontals."""
    figure = new_figure(escape_plotly(found.name), metric.label, 360)
    fixed = sorted((point for point in points if point.arm in found.fixed), key=lambda point: point.x or 0.0)
    placed = [point.x for point in points if point.x is not None]
    wide = min(placed) > 0 and max(placed) / min(placed) > 50
    low, high = (min(placed) / 1.3, max(placed) * 1.3) if wide else _widen(min(placed), max(placed))
    levels = [point for point in points if point.x is None]
    factor, shift = (0.97, 0.0) if wide else (1.0, 0.012 * (high - low))
    scheduled = [point.arm for point in levels if point.arm in found.others]
    for point in levels:
        style = line_style(2 + scheduled.index(point.arm)) if point.arm in scheduled else CONTROL
        _plot_level(figure, point, metric, (low, high), style)

    def plot_points(shown: list[Point], label: str, style: LineStyle, symbol: str) -> None:
        _plot_points(figure, shown, metric, label, style, symbol, lambda x: factor * x - shift)

    plot_points(fixed, f"fixed {escape_plotly(found.path[-1], 20)}", line_style(0), "circle")
    for point in points:
        if point.x is not None and point.arm not in found.fixed:
            label = f"{escape_plotly(point.arm, 30)}, chosen {format_value(point.x)}"
            plot_points([point], label, LineStyle(BEST, "solid"), "star")
    figure.update_xaxes(type="log" if wide else "linear", range=None if wide else [low, high])
    better = "lower" if direction == "min" else "higher"
    caption = (
        f"Mean over {_count_seeds(points)} with its 95 % t interval; faint dots are single seeds. "
        f"{better.capitalize()} is better. Verdicts use paired differences, which these intervals do not show."
    )
    return ReportFigure(f"setting-{metric.bare}", f"{student}: {found.name} against {metric.words}", caption, figure)


def _make_point(records: StudyRecords, cell: Cell, found: Sweep, name: str) -> Point | None:
    runs = records.get_confirm_runs(cell)
    runs = runs[np.isfinite(runs[name].to_numpy(dtype=float))]
    if runs.empty:
        return None
    metric = records.get_metric(name)
    seeds = [float(value) * metric.factor for value in runs[name]]
    chosen = found.fixed.get(cell.arm, _read_setting(runs["config"].iloc[-1], found.path))
    return Point(cell.arm, chosen, tuple(seeds), statistics.compute_mean(seeds))


def _read_setting(text: str, path: Path) -> float | None:
    """Return the number at `path` of a run's loss or recipe; None if it is missing or scheduled."""
    try:
        config = json.loads(text)
        entry = config["task"] if path[0] == "recipe" else config["loss"]
        for key in path:
            entry = entry[int(key)] if isinstance(entry, list) else entry[key]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return float(entry) if isinstance(entry, int | float) and not isinstance(entry, bool) else None


def _walk_leaves(description: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and value of each entry of a description that is not an object or a list."""
    if isinstance(description, dict | list):
        items = description.items() if isinstance(description, dict) else enumerate(description)
        for key, item in items:
            if key not in CLASS_KEYS or key == "is":
                yield from _walk_leaves(item, (*path, str(key)))
    else:
        yield path, description


def _key_without(leaves: dict[Path, Any], path: Path) -> str:
    """Return a key of all entries that are not at or below `path`."""
    return repr(sorted((key, repr(value)) for key, value in leaves.items() if key[: len(path)] != path))


def _widen(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis with a margin on both sides; it starts at zero if `low` is near zero."""
    room = 0.06 * (high - low)
    return (-room if 0 <= low < 0.5 * (high - low) else low - room), high + room


def _count_seeds(points: list[Point]) -> str:
    counts = sorted({point.mean.n for point in points})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _plot_level(figure: go.Figure, point: Point, metric: Metric, ends: tuple[float, float], style: LineStyle) -> None:
    kind = "control" if style is CONTROL else "scheduled"
    mean, interval = point.mean.mean, point.mean.interval
    if interval and style is CONTROL:
        band = [*round_values([interval.low] * 2), *round_values([interval.high] * 2)]
        figure.add_scatter(
            x=[*ends, *reversed(ends)], y=band, fill="toself", fillcolor=with_alpha(style.colour, 0.15), mode="none"
        )
        figure.data[-1].update(name=f"{escape_plotly(point.arm, 30)}, interval", showlegend=False, hoverinfo="skip")
    figure.add_scatter(
        x=[ends[0], sum(ends) / 2, ends[1]],
        y=round_values([mean] * 3),
        mode="lines",
        name=f"{escape_plotly(point.arm, 30)} ({kind})",
        line={"color": style.colour, "dash": style.dash, "width": 2},
        hovertemplate=f"{escape_plotly(point.arm)}: %{{y:.{metric.digits}f}}<extra></extra>",
    )


def _plot_points(
    figure: go.Figure,
    points: list[Point],
    metric: Metric,
    name: str,
    style: LineStyle,
    symbol: str,
    shift_left: Callable[[float], float],
) -> None:
    """Draw means with their intervals, and each seed slightly to the left, where no interval covers it."""
    figure.add_scatter(
        x=round_values(shift_left(point.x) for point in points if point.x is not None for _ in point.seeds),
        y=round_values(value for point in points for value in point.seeds),
        mode="markers",
        name=f"{name}, one seed",
        marker={"color": with_alpha(style.colour, 0.35), "size": 6},
        showlegend=False,
        hovertemplate=f"one seed: %{{y:.{metric.digits}f}}<extra></extra>",
    )
    figure.add_scatter(
        x=round_values(point.x for point in points),
        y=round_values(point.mean.mean for point in points),
        mode="lines+markers" if len(points) > 1 else "markers",
        name=name,
        line={"color": style.colour, "width": 1.5},
        marker={"color": style.colour, "size": 14 if symbol == "star" else 9, "symbol": symbol},
        customdata=[escape_plotly(point.arm) for point in points],
        error_y={"array": round_values(point.mean.half_width for point in points), "thickness": 1.8, "width": 6},
        hovertemplate=f"%{{customdata}}: %{{y:.{metric.digits}f}}<extra></extra>",
    )

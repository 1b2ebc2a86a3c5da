"""Figures that compare arms: paired differences, learning curves, distance to the teacher over epochs.

For each, a collect_* function returns the data and a plot_* function draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from reports.analysis.comparison import Comparison
from reports.analysis.statistics import Interval
from reports.analysis.verdicts import format_verdict
from reports.figures.style import (
    GREY,
    ReportFigure,
    escape_plotly,
    line_style,
    make_integer_ticks,
    new_figure,
    round_values,
    with_alpha,
)
from reports.format.metrics import Metric
from reports.load import StudyRecords

DISTANCES = "train/teacher_"
"""Start of the names of metrics that measure the distance of a student's outputs to the teacher's."""


@dataclass(frozen=True)
class Difference:
    """One row of the figure of differences, in display units."""

    arm: str
    versus: str
    verdict: str
    mean: float
    interval: Interval | None
    seeds: tuple[float, ...]
    position: int
    """Position of the arm in the study, which sets its colour."""


def draw_differences(comparison: Comparison) -> ReportFigure | None:
    """Draw each compared arm's paired differences by seed, with their mean and its 95 % interval."""
    data = collect_differences(comparison)
    return plot_differences(data, comparison) if data else None


def collect_differences(comparison: Comparison) -> list[Difference]:
    """Return one row per planned comparison, in the study's order."""
    scale = comparison.metric.factor
    return [
        Difference(
            arm=contrast.arm,
            versus=contrast.versus,
            verdict=format_verdict(contrast) or "",
            mean=contrast.paired.difference * scale,
            interval=Interval(contrast.paired.interval.low * scale, contrast.paired.interval.high * scale)
            if contrast.paired.interval
            else None,
            seeds=tuple(value * scale for value in contrast.differences),
            position=position,
        )
        for position, row in enumerate(comparison.rows)
        for contrast in row.contrasts
        if contrast.paired
    ]


def plot_differences(data: list[Difference], comparison: Comparison) -> ReportFigure:
    """Draw one row per arm, the first on top: a dot per seed, and the mean with its interval."""
    title = comparison.metric.title_difference(f"difference in {comparison.metric.words}")
    figure = new_figure(title, "", 90 + 64 * len(data))
    figure.update_yaxes(range=[-0.5, len(data) - 0.3], showgrid=False, showticklabels=False)
    figure.update_xaxes(showgrid=True, rangemode="tozero", zeroline=True, zerolinecolor=GREY, zerolinewidth=1.5)
    for line, difference in enumerate(reversed(data)):
        _plot_difference(figure, difference, line)
    figure.update_layout(showlegend=False)
    side = "right" if comparison.direction == "max" else "left"
    differ = any(contrast.students_differ for contrast in comparison.contrasts)
    shared = (
        "data order, and from the same weights where their students are equal" if differ else "weights and data order"
    )
    return ReportFigure(
        "differences",
        f"{comparison.student}: paired differences",
        f"Each dot is one seed, with which both arms start from the same {shared}. The bar is the 95 % interval of the "
        f"mean. Values {side} of zero are better.",
        figure,
    )


def draw_curves(records: StudyRecords, student: str) -> ReportFigure | None:
    """Draw the learning curves of the confirm runs, one line per arm."""
    name = choose_curve_metric(records)
    data = collect_curves(records, student, name) if name else pd.DataFrame()
    return None if data.empty or not name else plot_curves(data, records, student, records.get_metric(name))


def choose_curve_metric(records: StudyRecords) -> str | None:
    """Return the metric that confirm runs record each epoch: on validation if held out, else on train, else any."""
    epochs = records.epochs[records.epochs["phase"] == "confirm"]
    same_on_train = "train/" + records.metric.split("/", 1)[-1]
    others = [name for name in epochs.columns if name.startswith("train/")]
    candidates = (records.metric, same_on_train, *others)
    return next((name for name in candidates if name in epochs and epochs[name].notna().any()), None)


def collect_curves(records: StudyRecords, student: str, name: str) -> pd.DataFrame:
    """Return mean, low, high and n of the metric `name` per arm and epoch, over the confirm runs that count."""
    runs = records.confirmed[records.confirmed["student"] == student][["trial_id", "arm"]]
    rows = records.epochs[["trial_id", "epoch", name]].merge(runs, on="trial_id").dropna(subset=[name])
    grouped = rows.groupby(["arm", "epoch"], as_index=False)[name]
    return grouped.agg(["mean", "min", "max", "count"]).rename(columns={"min": "low", "max": "high", "count": "n"})


def plot_curves(data: pd.DataFrame, records: StudyRecords, student: str, metric: Metric) -> ReportFigure:
    """Draw the mean of each arm, and a band from its lowest to its highest seed."""
    split = metric.name.split("/", 1)[0]
    merged = split == "train" and records.study.get("confirm_on") != "train"
    why = " There is no validation curve: confirm runs train on the validation data too." if merged else ""
    return ReportFigure(
        "curves",
        f"{student}: learning curves",
        f"Confirm runs: {metric.words} after each epoch, {_describe_band(data)}.{why}",
        _plot_bands(data, records, student, metric, metric.label),
    )


def draw_distances(records: StudyRecords, student: str) -> Iterator[ReportFigure]:
    """Yield a figure of each distance of the student's outputs to the teacher's over epochs, of those recorded."""
    for name in records.epochs.columns:
        data = collect_curves(records, student, name) if name.startswith(DISTANCES) else pd.DataFrame()
        if not data.empty:
            yield plot_distances(data, records, student, records.get_metric(name))


def plot_distances(data: pd.DataFrame, records: StudyRecords, student: str, metric: Metric) -> ReportFigure:
    """Draw a distance to the teacher, on a logarithmic axis if it falls by more than a factor of 30."""
    figure = _plot_bands(data, records, student, metric, metric.noun)
    if data["low"].min() > 0 and data["high"].max() > 30 * data["low"].min():
        figure.update_yaxes(type="log", dtick=1)
    return ReportFigure(
        "distances" if metric.bare == "teacher_distance" else f"distances-{metric.bare}",
        f"{student}: {metric.noun}",
        f"Confirm runs: {metric.noun}, of the student's outputs on the training data of each epoch, "
        f"{_describe_band(data)}. Only arms with a teacher record it.",
        figure,
    )


def _describe_band(data: pd.DataFrame) -> str:
    return f"mean over {data['n'].max():.0f} seeds; the band spans the lowest to the highest"


def _plot_bands(data: pd.DataFrame, records: StudyRecords, student: str, metric: Metric, label: str) -> go.Figure:
    figure = new_figure("epoch", label, hovermode="x unified")
    figure.update_xaxes(**make_integer_ticks(int(data["epoch"].max())))
    arms = [data[data["arm"] == cell.arm] for cell in records.get_cells(student)]
    shown = [(position, rows) for position, rows in enumerate(arms) if not rows.empty]
    for position, rows in shown:  # bands first, fainter the more there are, so that lines stay on top
        _plot_band(figure, rows, position, metric, opacity=min(0.16, 0.48 / len(shown)))
    for position, rows in shown:
        _plot_mean(figure, rows, position, metric)
    return figure


def _plot_difference(figure: go.Figure, difference: Difference, line: int) -> None:
    colour, mean, interval = line_style(difference.position).colour, difference.mean, difference.interval
    figure.add_scatter(
        x=round_values(difference.seeds),
        y=[line] * len(difference.seeds),
        mode="markers",
        name=f"{escape_plotly(difference.arm)} against {escape_plotly(difference.versus)}, one seed",
        marker={"color": with_alpha(colour, 0.4), "size": 9},
        hovertemplate="one seed: %{x:+.3g}<extra></extra>",
    )
    figure.add_scatter(
        x=round_values([mean]),
        y=[line],
        mode="markers",
        name=f"{escape_plotly(difference.arm)} against {escape_plotly(difference.versus)}, mean",
        marker={"color": colour, "size": 12, "symbol": "diamond"},
        hovertemplate=f"{escape_plotly(difference.arm)}: mean %{{x:+.3g}}<extra></extra>",
    )
    if interval:
        ends = {"array": round_values([interval.high - mean]), "arrayminus": round_values([mean - interval.low])}
        figure.data[-1].error_x = {**ends, "thickness": 2.5, "width": 7}
    arm, versus = escape_plotly(difference.arm, 30), escape_plotly(difference.versus, 20)
    figure.add_annotation(
        text=f"<b>{arm}</b><br>against {versus}: {difference.verdict}",
        **{"x": 0, "xref": "paper", "xanchor": "left", "y": line, "yshift": 24, "align": "left", "showarrow": False},
    )


def _plot_band(figure: go.Figure, data: pd.DataFrame, position: int, metric: Metric, opacity: float) -> None:
    epochs, scale = data["epoch"].tolist(), metric.factor
    edge = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    edge["legendgroup"] = f"arm{position}"
    fill = {"fill": "tonexty", "fillcolor": with_alpha(line_style(position).colour, opacity)}
    arm = escape_plotly(data["arm"].iloc[0])
    figure.add_scatter(x=epochs, y=round_values(data["low"] * scale), name=f"{arm}, lowest seed", **edge)
    figure.add_scatter(x=epochs, y=round_values(data["high"] * scale), name=f"{arm}, highest seed", **fill, **edge)


def _plot_mean(figure: go.Figure, data: pd.DataFrame, position: int, metric: Metric) -> None:
    style, epochs = line_style(position), data["epoch"].tolist()
    figure.add_scatter(
        x=epochs,
        y=round_values(data["mean"] * metric.factor),
        mode="lines" if len(epochs) > 1 else "markers",
        name=escape_plotly(data["arm"].iloc[0]),
        legendgroup=f"arm{position}",
        line={"color": style.colour, "dash": style.dash, "width": 2},
        hovertemplate=f"%{{y:.{metric.digits}f}}",
    )

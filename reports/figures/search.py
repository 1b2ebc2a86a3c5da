"""Figures of one cell's search. History, curves and slices are drawn here, the others in modules of their own.

A stopped trial's score comes after fewer epochs, so it is marked in every figure. A failed trial has no score; the
history shows it at the worst one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.analysis.search import find_best_trial, find_search_domains, list_parameters, sample_evenly
from reports.figures.contours import draw_contours
from reports.figures.importance import draw_importance, find_importance
from reports.figures.parallel_coordinates import draw_parallel_coordinates
from reports.figures.pareto import draw_fronts
from reports.figures.population import draw_population
from reports.figures.schedules import draw_schedules
from reports.figures.style import (
    BEST,
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    join_lines,
    make_integer_ticks,
    make_setting_axis,
    new_figure,
    round_values,
    with_alpha,
)
from reports.format.metrics import Metric
from reports.format.values import format_params, format_value
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

MAX_POINTS = 2000
"""Maximum trials in the history, which keeps the page small: each new best, and an even sample of the rest."""
MAX_SLICE_POINTS = 500
"""Maximum trials in each figure of a setting, of which a page may have dozens."""
MAX_CURVES = 120
"""Maximum validation curves; of more trials, an even sample."""

STATE_STYLES = {
    "COMPLETE": ("complete", {"color": PALETTE[0], "size": 8}),
    "PRUNED": ("stopped", {"color": GREY, "size": 8, "symbol": "circle-open", "line": {"width": 1.5}}),
    "FAILED": (
        "failed",
        {"color": PALETTE[3], "size": 10, "symbol": "x-thin", "line": {"width": 2, "color": PALETTE[3]}},
    ),
}


def draw_search(records: StudyRecords, cell: Cell) -> list[ReportFigure]:
    """Draw all figures of a searched cell; empty if it has no trials."""
    every = collect_scores(records, cell)
    trials = subsample(every)
    if trials.empty:
        return []
    metric, best = records.get_metric(records.metric), find_best_trial(records, cell)
    lower = records.get_direction(records.metric) == "min"
    drawn = [plot_history(trials, metric, cell, len(every), lower)]
    curves = collect_curves(records, cell, trials)
    if not curves.empty:
        drawn.append(plot_curves(curves, metric, best, cell, len(every)))
    drawn += draw_fronts(records, cell)
    mattered = draw_importance(records, cell)
    drawn += [mattered] if mattered else []
    names, domains = list_parameters(cell, every), find_search_domains(records, cell)
    logarithmic = {name for name, domain in domains.items() if domain.get("log") is True}
    across = draw_parallel_coordinates(every, names, logarithmic, metric, f"{cell.name}: all settings at once", lower)
    drawn += [across] if across else []
    ranked = [*find_importance(records, cell)] or names
    drawn += draw_contours(subsample(every, MAX_SLICE_POINTS), ranked, logarithmic, metric, cell.name, lower)
    drawn += draw_slices(cell, trials, metric, logarithmic)
    return drawn + (draw_schedules(records, best, cell) if best is not None else [])


def draw_search_so_far(records: StudyRecords, cell: Cell) -> list[ReportFigure]:
    """Draw history and validation curves of a search, those of running trials too; empty if it has no epochs.

    Of a population, its chains and the schedules of the best one: trials of different intervals do not compare.
    """
    if cell.population:
        return draw_population(records, cell)
    ended, trials = collect_scores(records, cell), records.get_search_trials(cell)
    metric, best = records.get_metric(records.metric), find_best_trial(records, cell)
    curves = collect_curves(records, cell, trials)
    lower = records.get_direction(records.metric) == "min"
    drawn = [] if ended.empty else [plot_history(subsample(ended), metric, cell, len(ended), lower)]
    return drawn + ([] if curves.empty else [plot_curves(curves, metric, best, cell, len(trials))])


def collect_scores(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return per search trial: trial_id, number, state, reason, params, score and best so far (in display units)."""
    trials = records.get_search_trials(cell)
    trials = trials[trials["state"].isin(list(STATE_STYLES))]
    data = trials[["trial_id", "number", "state", "reason", "params"]].copy()
    data["score"] = trials[records.metric].astype(float) * records.get_metric(records.metric).factor
    complete = data["score"].where(data["state"] == "COMPLETE")
    falling = records.get_direction(records.metric) == "min"
    data["best"] = (complete.cummin() if falling else complete.cummax()).ffill()
    return data.reset_index(drop=True)


def subsample(data: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """Return about `most` trials: each new best, and an even sample of the others."""
    if len(data) <= most:
        return data
    improved = data.index[data["best"].diff().fillna(1.0) != 0]
    return data.loc[sorted({*improved, *sample_evenly(data, most).index})]


def plot_history(data: pd.DataFrame, metric: Metric, cell: Cell, total: int, lower_is_better: bool) -> ReportFigure:
    """Draw scores in the order of trials, and the best complete one so far."""
    figure = new_figure("trial", metric.label, 340)
    figure.update_xaxes(**make_integer_ticks(int(data["number"].max())))
    known = data["score"].dropna()
    worst = float(known.max() if lower_is_better else known.min()) if len(known) else 0.0
    for state, (word, marker) in STATE_STYLES.items():
        rows = data[data["state"] == state]
        scores = rows["score"].fillna(worst) if state == "FAILED" else rows["score"]
        _plot_trials(figure, rows, scores, word, marker, metric)
    figure.add_scatter(
        x=data["number"].tolist(),
        y=round_values(data["best"]),
        mode="lines",
        name="best so far",
        line={"color": BEST, "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )
    return ReportFigure(
        "history",
        f"{cell.name}: search history",
        f"{_count_drawn(len(data), total)} A stopped trial has the score of its last epoch. A failed trial "
        "without a score is shown at the worst one.",
        figure,
    )


def collect_curves(records: StudyRecords, cell: Cell, trials: pd.DataFrame) -> pd.DataFrame:
    """Return number, state, epoch and value (in display units) per trial and epoch, of at most MAX_CURVES trials."""
    chosen = sample_evenly(trials, MAX_CURVES)
    best = find_best_trial(records, cell)
    if best is not None:
        chosen = pd.concat([chosen, trials[trials["trial_id"] == best["trial_id"]]]).drop_duplicates("trial_id")
    rows = records.epochs[["trial_id", "epoch", records.metric]].merge(chosen[["trial_id", "number", "state"]])
    rows["value"] = rows[records.metric].astype(float) * records.get_metric(records.metric).factor
    return rows.dropna(subset=["value"]).sort_values(["number", "epoch"])


def plot_curves(data: pd.DataFrame, metric: Metric, best: pd.Series | None, cell: Cell, total: int) -> ReportFigure:
    """Draw the validation curve of each search trial; the best one stands out."""
    figure = new_figure("epoch", metric.label, 340)
    figure.update_xaxes(**make_integer_ticks(int(data["epoch"].max())))
    number = int(best["number"]) if best is not None else -1
    others = data[data["number"] != number]
    for state, word, colour in (
        ("PRUNED", "stopped", with_alpha(GREY, 0.7)),
        ("FAILED", "failed", PALETTE[3]),
        ("COMPLETE", "complete", with_alpha(PALETTE[0], 0.75)),
        ("RUNNING", "running", PALETTE[4]),
    ):
        _plot_lines(figure, others[others["state"] == state], word, {"color": colour, "width": 1.2}, metric)
    _plot_lines(figure, data[data["number"] == number], f"best: trial {number}", {"color": BEST, "width": 2.5}, metric)
    caption = f"{_count_drawn(data['number'].nunique(), total)} The best one is highlighted."
    return ReportFigure("search-curves", f"{cell.name}: validation while searching", caption, figure)


def draw_slices(cell: Cell, trials: pd.DataFrame, metric: Metric, logarithmic: set[str]) -> list[ReportFigure]:
    """Draw the score against each searched parameter, one small figure each."""
    scored = subsample(trials[trials["score"].notna()], MAX_SLICE_POINTS)
    params = [parse_json_object(text) for text in scored["params"]]
    drawn = []
    for index, name in enumerate(list_parameters(cell, scored)):
        here = [i for i, given in enumerate(params) if name in given]
        if here:
            settings = [params[i][name] for i in here]
            figure = _plot_slice(scored.iloc[here], settings, name, metric, name in logarithmic)
            drawn.append(ReportFigure(f"slice{index}", f"{cell.name}: {name}", "", figure, small=True))
    return drawn


def _plot_slice(rows: pd.DataFrame, settings: list[Any], name: str, metric: Metric, logarithmic: bool) -> go.Figure:
    figure = new_figure(escape_plotly(name), metric.label, 260, showlegend=False)
    figure.update_xaxes(**make_setting_axis(settings, logarithmic))
    if figure.layout.xaxis.type == "category":
        settings = [escape_plotly(format_value(value)) for value in settings]
    rows = rows.assign(setting=pd.Series(settings, rows.index, dtype=object))
    for state, (word, marker) in STATE_STYLES.items():
        picked = rows[rows["state"] == state]
        if len(picked):
            figure.add_scatter(
                x=picked["setting"].tolist(),
                y=round_values(picked["score"]),
                mode="markers",
                name=word,
                marker=marker,
                customdata=picked["number"].tolist(),
                hovertemplate=f"trial %{{customdata}}, {word}<br>%{{x}}: %{{y:.{metric.digits}f}}<extra></extra>",
            )
    return figure


def _plot_trials(
    figure: go.Figure, rows: pd.DataFrame, scores: pd.Series, word: str, marker: dict[str, Any], metric: Metric
) -> None:
    if rows.empty:
        return
    score = f"<br>{metric.words}: %{{y:.{metric.digits}f}}" if rows["score"].notna().all() else ""
    figure.add_scatter(
        x=rows["number"].tolist(),
        y=round_values(scores),
        mode="markers",
        name=word,
        marker=marker,
        customdata=[escape_plotly(text, 200) for text in _describe_trials(rows)],
        hovertemplate=f"%{{customdata}}, {word}{score}<extra></extra>",
    )


def _describe_trials(rows: pd.DataFrame) -> Iterator[str]:
    for number, state, why, text in rows[["number", "state", "reason", "params"]].astype(object).to_numpy():
        params = format_params(parse_json_object(text))
        yield f"trial {number} ({params})" + (f": {why}" if state == "FAILED" and why else "")


def _plot_lines(figure: go.Figure, data: pd.DataFrame, name: str, line: dict[str, Any], metric: Metric) -> None:
    if data.empty:
        return
    curves = data.groupby("number", sort=False)
    figure.add_scatter(
        **join_lines((rows["epoch"].tolist(), round_values(rows["value"]), number) for number, rows in curves),
        mode="lines+markers",
        marker={"size": 3},
        name=name,
        line=line,
        hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: %{{y:.{metric.digits}f}}<extra></extra>",
    )


def _count_drawn(count: int, total: int) -> str:
    return f"{total} trials." if count == total else f"{count} of {total} trials are drawn."

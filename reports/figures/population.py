"""Figures of a population's search: who copied whom, and the schedule that the best chain has."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from reports.analysis.population import (
    find_best_chain,
    find_last_epochs,
    find_published_values,
    list_values,
)
from reports.analysis.search import read_schedules
from reports.figures.style import (
    BEST,
    GREY,
    PALETTE,
    ReportFigure,
    escape_plotly,
    join_lines,
    make_integer_ticks,
    new_figure,
    round_values,
    with_alpha,
)
from reports.format.values import format_params
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

ROW_PIXELS, LEAST_PIXELS = 22, 260
"""Height of a member's row, and least height of the figure."""

ENDS = {"COMPLETE": "", "FAILED": "failed, ", "PRUNED": "skipped by hand, "}
"""States in which a link has ended, with the words before its score."""


def draw_population(records: StudyRecords, cell: Cell) -> list[ReportFigure]:
    """Draw the chains of a cell, and the best one's schedules; empty if it has no trials."""
    links = records.get_search_trials(cell)
    if links.empty:
        return []
    links = links.assign(last_epoch=find_last_epochs(records, links))
    chain = find_best_chain(records, cell)
    drawn = draw_chains(records, cell, links, links[links["trial_id"].isin(chain["trial_id"])])
    return [drawn, *draw_found_schedules(records, cell, chain)]


def draw_chains(records: StudyRecords, cell: Cell, links: pd.DataFrame, chain: pd.DataFrame) -> ReportFigure:
    """Draw a row for each member and a slanted line for each copy; the best chain stands out."""
    members = int(links["member"].max()) + 1
    figure = new_figure("epoch", "member", max(LEAST_PIXELS, ROW_PIXELS * members + 120))
    figure.update_xaxes(**make_integer_ticks(int(links["epochs"].max())))
    figure.update_yaxes(**make_integer_ticks(members - 1), zeroline=False)
    others = links[~links["trial_id"].isin(chain["trial_id"])]
    _plot_links(figure, others, links, "other chains", {"color": with_alpha(GREY, 0.8), "width": 1.5})
    _plot_links(figure, chain, links, "best chain", {"color": BEST, "width": 3})
    _plot_ends(figure, records, links)
    return ReportFigure(
        "chains",
        f"{cell.name}: who copied whom",
        "A row is a member, a slanted line a copy of another member's weights with changed settings. A point is the "
        "end of a trial, most often of an interval; its details are settings and score.",
        figure,
    )


def draw_found_schedules(records: StudyRecords, cell: Cell, chain: pd.DataFrame) -> list[ReportFigure]:
    """Draw one small figure for each setting: the best chain's values, the published ones, and those of other arms."""
    drawn = []
    for index, (name, values) in enumerate(list_values(chain).items()):
        figure = new_figure("epoch", escape_plotly(name).replace(".", ".<br>"), 280)  # long names in two lines
        figure.update_xaxes(**make_integer_ticks(int(chain["epochs"].max())))
        spans = zip(chain["start_epoch"], chain["end_epoch"], values, strict=True)
        steps = [(edge, value) for start, end, value in spans for edge in (start, end)]
        _plot_steps(figure, steps, "best chain", {"color": BEST, "width": 2.5})
        published = [*enumerate(find_published_values(records, cell, name), start=1)]
        _plot_epochs(figure, published, "published", {"color": PALETTE[0], "width": 2, "dash": "7px,3px"})
        others = collect_other_schedules(records, cell, name)
        for colour, (arm, found) in zip(PALETTE[2:], others.items(), strict=False):  # on top: they may be the published
            _plot_epochs(figure, found, arm, {"color": colour, "width": 2, "dash": "2px,3px"})
        drawn.append(ReportFigure(f"schedule{index}", f"{cell.name}: {name}", "", figure, small=True))
    return drawn


def collect_other_schedules(records: StudyRecords, cell: Cell, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return epoch and value of the schedule `name` in the first confirm run of each other arm of the student."""
    first = records.confirmed.drop_duplicates("cell").set_index("cell")["trial_id"]
    found = {}
    for other in records.get_cells(cell.student):
        if other != cell and other.name in first:
            schedules = read_schedules(records.epochs, [first[other.name]])
            rows = schedules[schedules["schedule"] == name]
            found[other.arm] = list(zip(rows["epoch"].astype(int), rows["value"], strict=True))
    return {arm: values for arm, values in found.items() if values}


def _plot_links(figure: go.Figure, links: pd.DataFrame, every: pd.DataFrame, name: str, line: dict[str, Any]) -> None:
    """Draw links, each from its parent's row."""
    rows, lines = dict(zip(every["trial_id"], every["member"], strict=True)), []
    for _, link in links.iterrows():
        start, end = int(link["start_epoch"]), int(link["last_epoch"])
        member, origin = int(link["member"]), int(rows.get(link["parent"], link["member"]))
        turn = start + (end - start) / 4 if origin != member else start
        lines.append(([start, turn, end], [origin, member, member], link["number"]))
    if lines:
        figure.add_scatter(**join_lines(lines), mode="lines", name=name, line=line, hoverinfo="skip")


def _plot_ends(figure: go.Figure, records: StudyRecords, links: pd.DataFrame) -> None:
    metric = records.get_metric(records.metric)
    ended = links[links["state"].isin(list(ENDS))]
    details = [
        f"trial {number}: {format_params(parse_json_object(text))}"
        f"<br>{ENDS[state]}{metric.words}: {metric.format(score)}"
        for number, text, score, state in ended[["number", "params", records.metric, "state"]].itertuples(index=False)
    ]
    scores = ended[records.metric].astype(float) * metric.factor
    marker = {"color": round_values(scores), "colorscale": "Viridis", "size": 8, "showscale": True}
    marker["colorbar"] = {"title": {"text": metric.label}, "thickness": 12}
    figure.add_scatter(
        x=ended["last_epoch"].tolist(),
        y=ended["member"].tolist(),
        mode="markers",
        name="end of a trial",
        marker=marker,
        customdata=details,
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.update_layout(legend={"orientation": "h", "y": 1.08})


def _plot_epochs(figure: go.Figure, values: list[tuple[int, float]], name: str, line: dict[str, Any]) -> None:
    """Draw one value for each epoch, where there are any."""
    if values:
        _plot_steps(figure, [(edge, value) for epoch, value in values for edge in (epoch - 1, epoch)], name, line)


def _plot_steps(figure: go.Figure, steps: list[tuple[Any, float]], name: str, line: dict[str, Any]) -> None:
    x, y = [edge for edge, _ in steps], [value for _, value in steps]
    hover = "%{x}: %{y:.4g}<extra>" + escape_plotly(name) + "</extra>"
    figure.add_scatter(x=x, y=y, mode="lines", name=escape_plotly(name), line=line, hovertemplate=hover)

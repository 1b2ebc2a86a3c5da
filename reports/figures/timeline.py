"""Timeline of the trials: when each ran, on which worker, and how it ended.

The times come from the rows of epochs. `started` in a trial's row is when it was assigned to a worker, which may still
have run another one, and a trial that was interrupted overnight ran in two stretches. Long pauses of the whole study
are cut out of the axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from reports.figures.style import GREY, PALETTE, ReportFigure, escape_plotly, new_figure
from reports.format.values import format_duration
from reports.load import StudyRecords

BARS_PER_AXIS = 1500
"""Resolution of the axis: above MAX_SINGLE_BARS stretches, gaps below 1/BARS_PER_AXIS of its length are closed."""
MAX_SINGLE_BARS = 1500
MAX_PAUSE = 0.04
"""Longest pause that stays in the axis, as a fraction of the time worked."""

TRIAL_COLUMNS = ["trial_id", "cell", "phase", "number", "state", "worker"]
TRIAL_KINDS = {
    "prepare": ("preparing", PALETTE[5]),
    "search": ("search, complete", PALETTE[0]),
    "confirm": ("confirm, complete", PALETTE[2]),
    "PRUNED": ("stopped", GREY),
    "FAILED": ("failed", PALETTE[3]),
    "other": ("interrupted, superseded or running", PALETTE[4]),
}


def draw_timeline(records: StudyRecords) -> ReportFigure | None:
    """Draw the timeline; None for a study without rows."""
    stretches = collect_stretches(records)
    return plot_timeline(*cut_pauses(stretches)) if len(stretches) else None


def collect_stretches(records: StudyRecords) -> pd.DataFrame:
    """Return trial_id, cell, phase, number, kind, lane, begin, end (seconds) per uninterrupted stretch of a trial."""
    epochs = records.epochs[["trial_id", "recorded", "seconds"]].dropna()
    rows = epochs.merge(records.trials[TRIAL_COLUMNS], on="trial_id").sort_values(["trial_id", "recorded"])
    rows["end"] = _to_seconds(rows["recorded"])
    rows["begin"] = rows["end"] - rows["seconds"]
    # A row is recorded some time after its epoch ends; a break is longer than any such delay.
    wait = 60 + 3 * rows.groupby("trial_id")["seconds"].transform("max")
    broken = rows["begin"] - rows.groupby("trial_id")["end"].shift() > wait
    rows["stretch"] = broken.groupby(rows["trial_id"]).cumsum()
    kept = {name: (name, "first") for name in TRIAL_COLUMNS[1:]}
    kept |= {"begin": ("begin", "min"), "end": ("end", "max")}
    found = rows.groupby(["trial_id", "stretch"], as_index=False).agg(**kept)
    return _assign_kinds_and_lanes(pd.concat([found, _collect_trials_without_epochs(records)], ignore_index=True))


def _collect_trials_without_epochs(records: StudyRecords) -> pd.DataFrame:
    """Return trials that ended before their first epoch."""
    trials = records.trials[~records.trials["trial_id"].isin(records.epochs["trial_id"])]
    trials = trials.dropna(subset=["started", "ended"])
    return trials[TRIAL_COLUMNS].assign(
        begin=_to_seconds(trials["started"]), end=_to_seconds(trials["ended"]), stretch=0
    )


def _assign_kinds_and_lanes(found: pd.DataFrame) -> pd.DataFrame:
    """Return the stretches with kind and lane, ordered by time, which starts at 0 with the first stretch."""
    kind = found["state"].where(found["state"].isin(["PRUNED", "FAILED"]), "other")
    found["kind"] = found["phase"].where(found["state"] == "COMPLETE", kind)
    found["worker"] = found["worker"].fillna("")
    found[["begin", "end"]] -= found["begin"].min()
    found["lane"] = found["worker"].map(assign_lanes(found))
    return found.sort_values("begin", ignore_index=True)


def assign_lanes(stretches: pd.DataFrame) -> dict[str, int]:
    """Return the lane of each worker, from 0; a worker that replaced another on its node shares its lane."""
    spans = stretches.groupby("worker").agg(begin=("begin", "min"), end=("end", "max")).sort_values("begin")
    free: list[tuple[str, float]] = []
    found: dict[str, int] = {}
    for worker, begin, end in spans.itertuples():
        node = str(worker).rsplit(":", 1)[0]
        fits = (i for i, (where, until) in enumerate(free) if where == node and until <= begin)
        lane = next(fits, len(free))
        free[lane : lane + 1] = [(node, end)]
        found[str(worker)] = lane
    return found


def cut_pauses(stretches: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[float, float]]]:
    """Cut long pauses of the whole study out; return the stretches, and start and length of each pause in seconds."""
    reached = stretches["end"].cummax().shift(fill_value=0.0)
    idle = (stretches["begin"] - reached).clip(lower=0)
    longest = MAX_PAUSE * (stretches["end"].max() - idle.sum())
    cut = idle.where(idle > max(longest, 60.0), 0.0)
    found = [(float(stretches["begin"][i] - cut[: i + 1].sum()), float(cut[i])) for i in cut.index[cut > 0]]
    moved = stretches.assign(begin=stretches["begin"] - cut.cumsum(), end=stretches["end"] - cut.cumsum())
    return moved, found


def merge_stretches(stretches: pd.DataFrame) -> pd.DataFrame:
    """Merge stretches of one kind on one lane that are closer than a screen can show; `count` is their number."""
    gap = stretches["end"].max() / BARS_PER_AXIS
    rows = stretches.sort_values(["lane", "begin"])
    same = (rows[["lane", "kind"]] == rows[["lane", "kind"]].shift()).all(axis=1)
    near = (rows["begin"] - rows["end"].shift()).abs() <= gap
    short = (rows["end"] - rows["begin"]).rolling(2).max() <= 4 * gap
    group = (~(same & near & short)).cumsum()
    found = (
        rows.assign(count=1).groupby(group).agg({**dict.fromkeys(rows.columns, "first"), "end": "max", "count": "sum"})
    )
    return found.reset_index(drop=True)


def plot_timeline(stretches: pd.DataFrame, breaks: list[tuple[float, float]]) -> ReportFigure:
    """Draw bars on the workers' lanes, coloured by the trial's state, and a line at each pause that was cut out."""
    thick = len(stretches) > MAX_SINGLE_BARS
    shown = merge_stretches(stretches) if thick else stretches.assign(count=1)
    count = int(stretches["lane"].max()) + 1
    whole = float(shown["end"].max())
    unit, seconds = ("hours", 3600) if whole > 5400 else ("minutes", 60) if whole > 180 else ("seconds", 1)
    figure = new_figure(f"{unit} of work", "worker", min(900, 130 + max(3, count) * (26 if count <= 12 else 14)))
    figure.update_xaxes(range=[0, 1.005 * whole / seconds], showgrid=True)
    every = max(1, count // 12)
    ticks = {"tickmode": "array", "tickvals": list(range(0, count, every))}
    ticks["ticktext"] = [str(lane + 1) for lane in range(0, count, every)]
    figure.update_yaxes(**ticks, range=[count - 0.4, -0.6], showgrid=False)
    width = 14 if count <= 12 else 8
    for kind, (word, colour) in TRIAL_KINDS.items():
        _plot_bars(figure, shown[shown["kind"] == kind], whole, seconds, word, {"color": colour, "width": width})
    for where, _ in breaks:
        figure.add_vline(x=where / seconds, line={"color": GREY, "width": 1.5, "dash": "2px,3px"})
    figure.update_layout(hovermode="closest")
    caption, data = _write_caption(stretches, shown, breaks, count), shown.drop(columns="stretch").round(3)
    return ReportFigure("timeline", "When trials ran", caption, figure, data=data)


def _plot_bars(
    figure: go.Figure, rows: pd.DataFrame, whole: float, seconds: int, word: str, style: dict[str, Any]
) -> None:
    """Draw all bars of one kind as one trace with gaps, slightly shortened so that neighbours stay apart."""
    if rows.empty:
        return
    apart = np.minimum(whole / 400, (rows["end"] - rows["begin"]) / 4)
    begin, end = rows["begin"] / seconds, (rows["end"] - apart) / seconds
    x = np.column_stack([begin, end]).round(4).tolist()
    texts = [_describe_bar(row, word) for row in rows.itertuples()]
    figure.add_scatter(
        x=[value for pair in x for value in (*pair, None)],
        y=[value for lane in rows["lane"].tolist() for value in (lane, lane, None)],
        mode="lines",
        name=word,
        line=style,
        customdata=[value for text in texts for value in (text, text, "")],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _describe_bar(row: Any, word: str) -> str:
    if row.count > 1:
        return escape_plotly(f"{row.count} trials, {word}")
    return escape_plotly(
        f"{row.cell}, {row.phase} {row.number}: {word}, {format_duration(row.end - row.begin)}, {row.worker}", 140
    )


def _write_caption(stretches: pd.DataFrame, shown: pd.DataFrame, breaks: list[tuple[float, float]], count: int) -> str:
    kinds = stretches.drop_duplicates("trial_id", keep="last")["kind"].value_counts()
    counts = ", ".join(
        f"{kinds[kind]} {TRIAL_KINDS[kind][0]}" for kind in ("PRUNED", "FAILED", "other") if kind in kinds
    )
    caption = f"{stretches['trial_id'].nunique()} trials on {count} worker{'s' * (count > 1)}"
    caption += f": {counts}." if counts else "."
    if len(shown) < len(stretches):
        caption += " Neighbouring trials too short for the screen are drawn as one bar."
    if breaks:
        longest = ", ".join(format_duration(length) for _, length in breaks[:6])
        caption += f" Dotted lines mark pauses that are cut out ({longest}{' …' * (len(breaks) > 6)})."
    if stretches["trial_id"].duplicated().any():
        caption += " A resumed trial is shown on the worker that ran it last."
    return caption


def _to_seconds(times: pd.Series) -> pd.Series:
    return (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds()

"""What a cell's search found: its trials ranked, the winner, and the table of the best.

Figures of the same are in search_figures.py. Only validation scores appear here; a search never reads test.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.analysis.pareto import find_pareto_front
from reports.analysis.search import list_parameters, rank_trials
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import format_value
from reports.load import Cell, StudyRecords, parse_json_object

TOP_TRIALS = 10
STATE_WORDS = {"PRUNED": "stopped"}
"""As everywhere on the page; "pruned" would be read as pruned logits."""

MOST_COLUMNS = 8
"""A space with more settings, as one with several conditional groups, shows each trial's own in one column."""


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the best trials of each searched cell, each followed by its Pareto front if it has one."""
    cells = [cell for cell in records.cells if cell.searched]
    tables = [make(records, cell) for cell in cells for make in (make_search_table, make_pareto_table)]
    return [table for table in tables if table]


def make_search_table(records: StudyRecords, cell: Cell) -> Table:
    """The best trials of a searched cell: completed ones by score, then the others by how far they came."""
    written, ranked = records.get_metric(records.metric), rank_trials(records, cell)
    names = list_parameters(cell, ranked)
    rows, kinds = [], []
    for position, (_, trial) in enumerate(ranked.head(TOP_TRIALS).iterrows()):
        complete = trial["state"] == "COMPLETE"
        proposed = _format_settings(parse_json_object(trial["params"]), names)
        score = written.format(trial[records.metric]), f"{trial['epochs_done']:.0f} of {trial['epochs']:.0f}"
        rows.append((str(trial["number"]), STATE_WORDS.get(trial["state"], trial["state"].lower()), *proposed, *score))
        kinds.append("best" if position == 0 and complete else "" if complete else "reference")
    hidden = len(ranked) - len(rows)
    return Table(
        name=f"search-{cell.name}",
        caption=f"{cell.name}: best trials of {len(ranked)}",
        columns=("trial", "state", *(names if len(names) <= MOST_COLUMNS else ("settings",)), written.label, "epochs"),
        align="rl" + ("r" * len(names) if len(names) <= MOST_COLUMNS else "l") + "rr",
        rows=tuple(rows),
        kinds=tuple(kinds),
        notes=(f"{hidden} more in trials/.",) if hidden > 0 else (),
    )


def make_pareto_table(records: StudyRecords, cell: Cell) -> Table | None:
    """The completed trials that no other beats in all objectives at once; None for a study with one objective."""
    further = records.study.get("objectives")
    objectives = [records.metric, *further] if isinstance(further, list) and further else []
    trials = records.get_search_trials(cell)
    if not set(objectives) <= set(trials.columns):
        return None
    complete = trials[trials["state"] == "COMPLETE"]
    scores = [{name: trial[name] for name in objectives} for _, trial in complete.iterrows()]
    front = find_pareto_front(scores, objectives, [records.get_direction(name) for name in objectives])
    if not objectives or not front:
        return None
    names, written = list_parameters(cell, trials), [records.get_metric(name) for name in objectives]
    shown = complete.iloc[front].sort_values(records.metric, ascending=records.get_direction(records.metric) == "min")
    rows = [
        (str(trial["number"]), *_format_settings(parse_json_object(trial["params"]), names), *_scores(trial, written))
        for _, trial in shown.iterrows()
    ]
    few = len(names) <= MOST_COLUMNS
    return Table(
        name=f"pareto-{cell.name}",
        caption=f"{cell.name}: trials that no other is better than in every objective",
        columns=("trial", *(names if few else ("settings",)), *(m.label for m in written)),
        align="r" + ("r" * len(names) if few else "l") + "r" * len(written),
        rows=tuple(rows),
        kinds=("best",) + ("",) * (len(rows) - 1),
        notes=(f"Of {len(complete)} completed trials. {written[0].words} alone decides what is confirmed.",),
    )


def _scores(trial: pd.Series, written: list[Metric]) -> tuple[str, ...]:
    return tuple(one.format(float(trial[one.name])) for one in written)


def _format_settings(params: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """A trial's settings: a column each, or all in one where there are many."""
    if len(names) <= MOST_COLUMNS:
        return tuple(format_value(params[name]) if name in params else "–" for name in names)
    return (", ".join(f"{name} {format_value(params[name])}" for name in names if name in params),)

"""The tables of a cell's search: its best trials and, with several objectives, its Pareto front.

All scores are of validation: a search never reads test data.
"""

from __future__ import annotations

from typing import Any

from reports.analysis.search import list_objectives, list_parameters, mark_front, rank_trials
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import format_value, format_whole
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords
from reports.tables.trials import name_state
from study.task import PARAMETERS

TOP_TRIALS = 10
"""Rows of the table of best trials; trials/ has all of them."""
MAX_COLUMNS = 8
"""Most searched settings with a column each; beyond it, as in spaces with conditional groups, they share one column."""


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the best trials of each searched cell, each followed by its Pareto front if it has one."""
    cells = [cell for cell in records.cells if cell.searched and not cell.population]
    tables = [make(records, cell) for cell in cells for make in (make_search_table, make_pareto_table)]
    return [table for table in tables if table]


def make_search_table(records: StudyRecords, cell: Cell) -> Table:
    """Return the best trials of a searched cell: completed ones by score, then the others by epochs done."""
    metric, ranked = records.get_metric(records.metric), rank_trials(records, cell)
    names, sizes = list_parameters(cell, ranked), cell.searches_student and PARAMETERS in ranked
    rows, kinds = [], []
    for position, (_, trial) in enumerate(ranked.head(TOP_TRIALS).iterrows()):
        complete = trial["state"] == "COMPLETE"
        proposed = _format_settings(parse_json_object(trial["params"]), names)
        score = metric.format(trial[records.metric]), f"{trial['epochs_done']:.0f} of {trial['epochs']:.0f}"
        size = [format_whole(trial[PARAMETERS])] if sizes else []
        rows.append((str(trial["number"]), name_state(trial["state"]), *proposed, *size, *score))
        kinds.append("best" if position == 0 and complete else "" if complete else "reference")
    hidden = len(ranked) - len(rows)
    return Table(
        name=f"search-{cell.name}",
        caption=f"{cell.name}: best trials of {len(ranked)}",
        columns=(
            "trial",
            "state",
            *(names if len(names) <= MAX_COLUMNS else ("settings",)),
            *["parameters"] * sizes,
            metric.label,
            "epochs",
        ),
        align="rl" + ("r" * len(names) if len(names) <= MAX_COLUMNS else "l") + "r" * sizes + "rr",
        rows=tuple(rows),
        kinds=tuple(kinds),
        notes=(f"{hidden} more in trials/.",) if hidden > 0 else (),
    )


def make_pareto_table(records: StudyRecords, cell: Cell) -> Table | None:
    """Return the completed trials on the Pareto front of all objectives; None for a study with one objective."""
    complete, metrics = mark_front(records, cell), [records.get_metric(name) for name in list_objectives(records)]
    front = complete[complete["front"]]
    if front.empty or len(metrics) < 2:
        return None
    names = list_parameters(cell, records.get_search_trials(cell))
    shown = front.sort_values(records.metric, ascending=records.get_direction(records.metric) == "min")
    rows = [
        (
            str(trial["number"]),
            *_format_settings(parse_json_object(trial["params"]), names),
            *(metric.format(float(trial[metric.name])) for metric in metrics),
        )
        for _, trial in shown.iterrows()
    ]
    few = len(names) <= MAX_COLUMNS
    return Table(
        name=f"pareto-{cell.name}",
        caption=f"{cell.name}: trials that no other is better than in every objective",
        columns=("trial", *(names if few else ("settings",)), *(m.label for m in metrics)),
        align="r" + ("r" * len(names) if few else "l") + "r" * len(metrics),
        rows=tuple(rows),
        kinds=("best",) + ("",) * (len(rows) - 1),
        notes=(_describe_choice(cell, len(complete), metrics[0]),),
    )


def _describe_choice(cell: Cell, complete: int, metric: Metric) -> str:
    """Return which of the trials are confirmed."""
    if cell.front == 1:
        return f"Of {complete} completed trials. {metric.words} alone decides what is confirmed."
    return (
        f"Of {complete} completed trials. At most {cell.front} are confirmed: the first one here, and in turn the one "
        "farthest from those in the second objective."
    )


def _format_settings(params: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cells of a trial's settings: one per setting, or a single one if there are many."""
    if len(names) <= MAX_COLUMNS:
        return tuple(format_value(params[name]) if name in params else "–" for name in names)
    return (", ".join(f"{name} {format_value(params[name])}" for name in names if name in params),)

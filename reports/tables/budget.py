"""The table of the budget: trials, epochs and time per cell, with an audit of whether all cells had the same.

The search of a searched arm is listed apart from its confirm runs, which every arm has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from reports.format.table import Table
from reports.format.values import format_duration
from reports.load import StudyRecords

SEARCH_COLUMNS = ("search trials", "complete", "stopped", "failed", "search epochs")
COLUMNS = ("cell", *SEARCH_COLUMNS, "confirm runs", "confirm epochs", "all epochs", "time", "GPU hours")


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the budget: preparations first, then the cells, the sum last; the audit is its note."""
    rows: list[tuple[str, ...]] = []
    prepare = records.trials[records.trials["phase"] == "prepare"]
    # steps of one kind share a row: the outputs of a large teacher are stored in dozens of steps
    for kind, group in prepare.groupby(prepare["arm"].str.split(" ").str[0], sort=False):
        rows.append((f"prepare: {kind}", *["–"] * 7, *_format_usage(group)))
    work = records.trials[records.trials["phase"] != "prepare"]
    rows += [_make_row(cell.name, work[work["cell"] == cell.name], records) for cell in records.cells]
    rows.append((*_make_row("all", work, records)[:-3], *_format_usage(records.trials)))
    return [
        Table(
            name="budget",
            caption="Trials, epochs and time per cell",
            columns=COLUMNS,
            align="l" + "r" * (len(COLUMNS) - 1),
            rows=tuple(rows),
            kinds=(*[""] * (len(rows) - 1), "total"),
            notes=tuple(note for note in (audit_budget(records), format_cost(records)) if note),
        )
    ]


def audit_budget(records: StudyRecords) -> str:
    """Return whether all cells had the same seeds, epochs and search trials, naming the cells that differ."""
    return " ".join(sentence for sentence in (_audit_confirm_runs(records), _audit_searches(records)) if sentence)


def _audit_confirm_runs(records: StudyRecords) -> str:
    runs = {cell.name: records.get_confirm_runs(cell) for cell in records.cells}
    if all(rows.empty for rows in runs.values()):
        return "No arm has a confirm run yet."
    seeds = {cell: tuple(sorted(rows["seed"])) for cell, rows in runs.items()}
    epochs = {cell: _format_planned_epochs(rows) for cell, rows in runs.items() if len(rows)}
    if len(set(seeds.values())) > 1:
        return f"Not equal: confirm runs by seed ({_group_cells(seeds, lambda had: f'{len(had)} runs')})."
    if len(set(epochs.values())) > 1:
        return f"Not equal: epochs of a confirm run ({_group_cells(epochs, str)})."
    count = len(next(iter(seeds.values())))
    same = f"the same {count} seeds" if count > 1 else "the same seed"
    return f"Equal: every cell was confirmed on {same}, {next(iter(epochs.values()))} epochs a run."


def _audit_searches(records: StudyRecords) -> str:
    searches = {cell.name: records.get_search_trials(cell) for cell in records.cells if cell.searched}
    if not searches:
        return "Nothing was searched."
    members = {cell.name: cell.population for cell in records.cells}
    counts = {cell: members[cell] or len(rows) for cell, rows in searches.items()}
    epochs = {cell: _format_planned_epochs(rows) for cell, rows in searches.items() if len(rows)}
    fixed = " Cells with fixed settings had no search." if len(searches) < len(records.cells) else ""
    if len(set(counts.values())) > 1:
        return f"Not equal: search trials ({_group_cells(counts, str)}).{fixed}"
    if len(set(epochs.values())) > 1:
        return f"Not equal: epochs of a search trial ({_group_cells(epochs, str)}).{fixed}"
    most = f" of at most {next(iter(epochs.values()))} epochs" if epochs else ""
    each = "Every searched cell" if len(searches) > 1 else "The searched cell"
    population = " A member of a population counts as a trial." if any(members.values()) else ""
    return f"{each} had {next(iter(counts.values()))} search trials{most} besides.{population}{fixed}"


def _format_planned_epochs(trials: pd.DataFrame) -> str:
    return " or ".join(f"{epochs:.0f}" for epochs in sorted(set(trials["epochs"].dropna())))


def _group_cells(by_cell: Mapping[str, Any], words: Callable[[Any], str]) -> str:
    """Return the cells grouped by their value: "8: a, b; 7: c"."""
    groups: dict[Any, list[str]] = {}
    for cell, value in by_cell.items():
        groups.setdefault(value, []).append(cell)
    return "; ".join(f"{words(value)}: {', '.join(cells)}" for value, cells in groups.items())


def _make_row(name: str, trials: pd.DataFrame, records: StudyRecords) -> tuple[str, ...]:
    search, confirm = trials[trials["phase"] == "search"], trials[trials["phase"] == "confirm"]
    states = [str((search["state"] == state).sum()) for state in ("COMPLETE", "PRUNED", "FAILED")]
    counted = str(confirm["trial_id"].isin(records.confirmed_points["trial_id"]).sum())
    searched = (str(len(search)), *states, _format_epochs(search)) if len(search) else ("–",) * len(SEARCH_COLUMNS)
    return (name, *searched, counted, _format_epochs(confirm), *_format_usage(trials))


def _format_epochs(trials: pd.DataFrame) -> str:
    return f"{trials['epochs_done'].fillna(0).sum():,.0f}"


def format_cost(records: StudyRecords) -> str:
    """Return the cost of all GPU hours as a sentence; empty without a price. That of the last run counts for all."""
    gpu_hours, usd_per_hour = sum_gpu_hours(records.trials), records.section("budget").get("usd_per_hour")
    if not gpu_hours or not usd_per_hour:
        return ""
    return f"{gpu_hours:.2f} GPU hours cost {gpu_hours * usd_per_hour:,.2f} USD at {usd_per_hour:,g} USD an hour."


def sum_gpu_hours(trials: pd.DataFrame) -> float:
    """Return the GPU time of all trials in hours; a trial on a share of a GPU counts that share."""
    return float((trials["seconds"].fillna(0) * trials["gpus"].fillna(0)).sum()) / 3600


def _format_usage(trials: pd.DataFrame) -> tuple[str, str, str]:
    gpu_hours = sum_gpu_hours(trials)
    return (
        _format_epochs(trials),
        format_duration(trials["seconds"].fillna(0).sum()),
        f"{gpu_hours:.2f}" if gpu_hours else "–",
    )

"""The choice of a cell and a seed to export, without test data.

By validation where cells have it, else the user names the cell. Within a cell no seed is preferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.format.values import shorten
from reports.load import Cell, StudyRecords
from study.errors import InputError


@dataclass(frozen=True)
class Choice:
    """A cell, and the reason for choosing it."""

    cell: Cell
    because: str


def choose_cell(records: StudyRecords, name: str | None = None) -> Choice:
    """Return the cell called `name`; without a name, the confirmed cell that is best on validation.

    Raises InputError if there is no such cell, if it is not confirmed, or if not all cells have a validation score.
    """
    planned = max(1, records.get_budget("seeds"))
    if name is not None:
        cell = next((cell for cell in records.cells if cell.name == name), None)
        if cell is None:
            raise InputError(f"no cell {shorten(name, 80)!r} in this study: {_list_cells(records.cells)}")
        if (done := len(records.get_confirm_runs(cell))) < planned:
            raise InputError(
                f"{cell.name!r} is not confirmed: {done} of {planned} seeds; resume the study, or name another cell"
            )
        return Choice(cell, "named by --cell")
    confirmed = tuple(cell for cell in records.cells if len(records.get_confirm_runs(cell)) >= planned)
    if not confirmed:
        raise InputError(f"no cell of {records.name!r} is confirmed yet: resume the study")
    if len(confirmed) == 1:
        return Choice(confirmed[0], "the only confirmed cell")
    return _choose_on_validation(records, confirmed)


def get_confirm_run(records: StudyRecords, cell: Cell, number: int, point: int = 0) -> Any:
    """Return a cell's confirm run by the number of its seed and the point of its front.

    Raises InputError if there is none.
    """
    runs = records.confirmed_points[records.confirmed_points["cell"] == cell.name]
    points = sorted(set(runs["point"]))
    if point not in points:
        raise InputError(f"{cell.name!r} has no point {point}: its points are {', '.join(map(str, points))}")
    runs = runs[runs["point"] == point]
    found = runs[runs["number"] == number]
    if found.empty:
        numbers = ", ".join(str(n) for n in runs["number"])
        raise InputError(f"no confirm run of seed number {number} in {cell.name!r}: the numbers are {numbers}")
    return found.iloc[0]


def _choose_on_validation(records: StudyRecords, cells: tuple[Cell, ...]) -> Choice:
    """Choose by the confirm runs if they held validation out, else by the searches.

    Where some cells have no search, as baselines without settings have, the others are compared, and this is said.
    """
    name = records.get_metric(records.metric).words
    ways = (
        (f"the best mean {name} of confirm runs", [_mean_confirm_score(records, cell) for cell in cells]),
        (f"the best {name} of a search", [_best_search_score(records, cell) for cell in cells]),
    )
    because, scores = min(ways, key=lambda way: way[1].count(None))
    known = [score for score in scores if score is not None]
    if not known:
        raise InputError(
            f"no confirmed cell has a {name}, and test scores must not choose: name a cell with --cell; "
            f"{_list_cells(cells)}"
        )
    best = max(known) if records.get_direction(records.metric) == "max" else min(known)
    lacking = [cell.name for cell, score in zip(cells, scores, strict=True) if score is None]
    without = f"; without one are {', '.join(lacking)}" if lacking else ""
    return Choice(cells[scores.index(best)], f"{because} among {len(known)} cells{without}")


def _mean_confirm_score(records: StudyRecords, cell: Cell) -> float | None:
    measured = records.get_confirm_runs(cell)[records.metric]
    return float(measured.mean()) if np.isfinite(measured.to_numpy(dtype=float)).all() else None


def _best_search_score(records: StudyRecords, cell: Cell) -> float | None:
    """Return the score of the best complete trial, which is the one that was confirmed."""
    trials = records.get_search_trials(cell)
    scores = trials.loc[trials["state"] == "COMPLETE", records.metric].dropna()
    if scores.empty:
        return None
    return float(scores.max() if records.get_direction(records.metric) == "max" else scores.min())


def _list_cells(cells: tuple[Cell, ...]) -> str:
    return "the cells are " + ", ".join(repr(shorten(cell.name, 80)) for cell in cells)

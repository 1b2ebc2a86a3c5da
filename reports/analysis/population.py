"""The chains of a population's search: the best one, its schedule next to the published one, and epochs trained."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reports.analysis.search import find_best_trial, find_published_trial, read_schedules
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords


def find_best_chain(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return the links of the best member's chain, the first one first; without rows before one is complete."""
    trials = records.get_search_trials(cell)
    best = find_best_trial(records, cell)
    if best is None:
        return trials.head(0)
    parents, chain = dict(zip(trials["trial_id"], trials["parent"], strict=True)), [str(best["trial_id"])]
    while parents.get(chain[0]):
        chain.insert(0, parents[chain[0]])
    return trials.set_index("trial_id", drop=False).loc[chain]


def list_values(chain: pd.DataFrame) -> dict[str, list[float]]:
    """Return each setting's values along a chain, one per interval."""
    params = [parse_json_object(text) for text in chain["params"]]
    return {name: [float(one[name]) for one in params] for name in (params[0] if params else {})}


def find_last_epochs(records: StudyRecords, links: pd.DataFrame) -> pd.Series:
    """Return the last epoch on record of each link's run, or the one that it starts from while it has none."""
    last = records.epochs.groupby("trial_id")["epoch"].max()
    return links["trial_id"].map(last).fillna(links["start_epoch"]).astype(int)


def find_published_values(records: StudyRecords, cell: Cell, name: str) -> list[float]:
    """Return a setting's published value in each epoch, by the first points of the student's arms; empty without one.

    The first point of another arm counts before the cell's own one if it changes the setting during training: of
    a population's own arm it has one value, which is no schedule.
    """
    others = [other for other in records.get_cells(cell.student) if other != cell]
    found = [values for one in (cell, *others) if (values := _list_published(records, one, name))]
    return next((values for values in found if len(set(values)) > 1), next(iter(found), []))


def _list_published(records: StudyRecords, cell: Cell, name: str) -> list[float]:
    trial = find_published_trial(records, cell)
    if trial is None:
        return []
    schedules = read_schedules(records.epochs, [str(trial["trial_id"])])
    values: list[float] = schedules.loc[schedules["schedule"] == name, "value"].tolist()
    constant = parse_json_object(trial["params"]).get(name)
    return values or ([float(constant)] * int(trial["epochs"]) if isinstance(constant, int | float) else [])


def count_search_epochs(records: StudyRecords, student: str) -> Mapping[str, int]:
    """Return the epochs that the search of each searched arm of a student has trained."""
    searched = [cell for cell in records.get_cells(student) if cell.searched]
    return {cell.arm: int(records.get_search_trials(cell)["epochs_done"].fillna(0).sum()) for cell in searched}

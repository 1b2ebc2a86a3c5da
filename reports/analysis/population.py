"""The chains of a population's search: the best one, its schedule, and the epochs that searches took."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reports.analysis.search import find_best_trial
from reports.load import Cell, StudyRecords, parse_json_object


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


def count_search_epochs(records: StudyRecords, student: str) -> Mapping[str, int]:
    """Return the epochs that the search of each searched arm of a student has trained."""
    searched = [cell for cell in records.get_cells(student) if cell.searched]
    return {cell.arm: int(records.get_search_trials(cell)["epochs_done"].fillna(0).sum()) for cell in searched}

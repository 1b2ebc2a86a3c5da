"""The search trials of a cell: their ranking, the best one, and the names of the searched parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.load import Cell, StudyRecords, parse_json_object


def rank_trials(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return a cell's search trials, best first.

    Completed trials come first, since the score of a stopped one is of fewer epochs; the others follow by epochs done.
    """
    trials = records.get_search_trials(cell)
    sign = -1.0 if records.get_direction(records.metric) == "max" else 1.0
    order = trials.assign(
        incomplete=trials["state"] != "COMPLETE",
        cost=np.where(trials["state"] == "COMPLETE", sign * trials[records.metric], -trials["epochs_done"]),
    )
    return trials.loc[order.sort_values(["incomplete", "cost"], na_position="last").index]


def find_best_trial(records: StudyRecords, cell: Cell) -> pd.Series | None:
    """Return the best completed search trial of a cell; None if there is none."""
    ranked = rank_trials(records, cell)
    complete = ranked[(ranked["state"] == "COMPLETE") & np.isfinite(ranked[records.metric].to_numpy(dtype=float))]
    return complete.iloc[0] if len(complete) else None


def list_parameters(cell: Cell, trials: pd.DataFrame) -> tuple[str, ...]:
    """Return the searched parameters that the study declares, then any others that a trial has."""
    seen = dict.fromkeys(cell.parameters)
    for text in trials["params"]:
        seen.update(dict.fromkeys(parse_json_object(text)))
    return tuple(seen)

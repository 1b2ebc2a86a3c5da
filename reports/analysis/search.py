"""Search trials of a cell: their ranking, the winner, and the names of the searched parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.load import Cell, StudyRecords, parse_json_object


def rank_trials(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """A cell's search trials, best first. Only completed ones compete: a stopped trial's score is of fewer epochs."""
    trials = records.get_search_trials(cell)
    sign = -1.0 if records.get_direction(records.metric) == "max" else 1.0
    order = trials.assign(
        competes=trials["state"] != "COMPLETE",
        cost=np.where(trials["state"] == "COMPLETE", sign * trials[records.metric], -trials["epochs_done"]),
    )
    return trials.loc[order.sort_values(["competes", "cost"], na_position="last").index]


def find_best_trial(records: StudyRecords, cell: Cell) -> pd.Series | None:
    """The best completed search trial of a cell; None if there is none yet."""
    ranked = rank_trials(records, cell)
    complete = ranked[(ranked["state"] == "COMPLETE") & np.isfinite(ranked[records.metric].to_numpy(dtype=float))]
    return complete.iloc[0] if len(complete) else None


def list_parameters(cell: Cell, trials: pd.DataFrame) -> tuple[str, ...]:
    """Searched parameters, as the study declares them, and any further one a trial has."""
    seen = dict.fromkeys(cell.parameters)
    for text in trials["params"]:
        seen.update(dict.fromkeys(parse_json_object(text)))
    return tuple(seen)

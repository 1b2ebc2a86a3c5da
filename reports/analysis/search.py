"""The search trials of a cell: their ranking, the best one, the Pareto front, and the searched parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.format.settings import find_domains
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords
from study.trial import Direction

WHOLE_LOSS = "method"
"""Name that study.space gives to a choice between whole losses."""


def sample_evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most this many rows, evenly spaced from the first to the last."""
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]


def rank_trials(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return a cell's search trials, best first.

    Completed trials come first, since the score of a stopped one is of fewer epochs; the others follow by epochs done.
    Trials of a population that end before the last epoch count as stopped. Of complete trials with equal scores the
    best in further objectives comes first, as it is the one that is confirmed.
    """
    trials = records.get_search_trials(cell)
    complete = _select_whole(trials)
    order = trials.assign(incomplete=~complete)
    names = [name for name in list_objectives(records) if name in trials]
    for name in names:
        sign = -1.0 if records.get_direction(name) == "max" else 1.0
        order[name] = np.where(complete, sign * trials[name], 0.0)
    order[records.metric] = np.where(complete, order[records.metric], -trials["epochs_done"])
    return trials.loc[order.sort_values(["incomplete", *names], na_position="last", kind="stable").index]


def list_objectives(records: StudyRecords) -> list[str]:
    """Return the metrics that the search optimises, the one that selects first."""
    further = records.study.get("objectives")
    return [records.metric, *further] if isinstance(further, list) else [records.metric]


def mark_front(records: StudyRecords, cell: Cell) -> pd.DataFrame:
    """Return a cell's complete search trials, with `front`: True if no other is better in every objective.

    Empty if an objective is not on record.
    """
    names, trials = list_objectives(records), records.get_search_trials(cell)
    complete = trials[trials["state"] == "COMPLETE"]
    if not set(names) <= set(trials.columns):
        return complete.head(0).assign(front=False)
    rows: list[Any] = complete[names].to_dict("records")
    front = find_pareto_front(rows, names, [records.get_direction(name) for name in names])
    return complete.assign(front=np.isin(np.arange(len(complete)), front))


def find_best_trial(records: StudyRecords, cell: Cell) -> pd.Series | None:
    """Return the best completed search trial of a cell; None if there is none."""
    ranked = rank_trials(records, cell)
    complete = ranked[_select_whole(ranked) & np.isfinite(ranked[records.metric].to_numpy(dtype=float))]
    return complete.iloc[0] if len(complete) else None


def _select_whole(trials: pd.DataFrame) -> pd.Series:
    """Return which trials have trained to the last epoch of their run."""
    whole: pd.Series = (trials["state"] == "COMPLETE") & (
        trials["end_epoch"].isna() | (trials["end_epoch"] == trials["epochs"])
    )
    return whole


def find_published_trial(records: StudyRecords, cell: Cell) -> pd.Series | None:
    """Return the longest trial that trained the first point of a cell's arm with the cell's student; None without one.

    It may be of another arm: the search stops its own where it falls behind, but an arm with the published settings
    as they are trains them to the end.
    """
    first = _list_objects(_find_arm(records, cell.arm).get("first"))
    loss = first[0].get("loss") if first and first[0].get("is") == "Configuration" else next(iter(first), None)
    trials = records.trials[(records.trials["student"] == cell.student) & (records.trials["number"] == 0)]
    same = [loss is not None and parse_json_object(text).get("loss") == loss for text in trials["config"]]
    found = trials[np.array(same, dtype=bool)].sort_values("epochs_done", ascending=False, kind="stable")
    return found.iloc[0] if len(found) else None


def read_schedules(epochs: pd.DataFrame, trial_ids: Iterable[str]) -> pd.DataFrame:
    """Return trial_id, epoch, schedule and value of each scheduled value of these trials, in the order of epochs."""
    rows = epochs[epochs["trial_id"].isin(list(trial_ids))].sort_values("epoch", kind="stable")
    entries = [
        (trial_id, epoch, name, float(value))
        for trial_id, epoch, text in rows[["trial_id", "epoch", "schedules"]].itertuples(index=False)
        for name, value in parse_json_object(text).items()
        if isinstance(value, int | float)
    ]
    return pd.DataFrame(entries, columns=["trial_id", "epoch", "schedule", "value"])


def find_search_domains(records: StudyRecords, cell: Cell) -> dict[str, dict[str, Any]]:
    """Return the described domains that a cell searches, by the name under which trials record their values."""
    students = dict(zip(records.students, _list_objects(records.section("study").get("students")), strict=False))
    recipe, student = describe_recipe(records, cell.arm), students.get(cell.student)
    space = {"": _find_arm(records, cell.arm).get("loss"), "recipe": recipe, "student": student}
    return {name or WHOLE_LOSS: domain for name, domain in find_domains(space)}


def describe_recipe(records: StudyRecords, arm: str) -> Any:
    """Return the description of the recipe by which an arm trains its students; None if it is not recorded."""
    return _find_arm(records, arm).get("recipe") or records.section("study", "task").get("recipe")


def _find_arm(records: StudyRecords, name: str) -> dict[str, Any]:
    arms = _list_objects(records.section("study").get("arms"))
    return next((arm for arm in arms if arm.get("name") == name), {})


def _list_objects(listed: Any) -> list[dict[str, Any]]:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def list_parameters(cell: Cell, trials: pd.DataFrame) -> tuple[str, ...]:
    """Return the searched parameters that the study declares, then any others that a trial has."""
    seen = dict.fromkeys(cell.parameters)
    for text in trials["params"]:
        seen.update(dict.fromkeys(parse_json_object(text)))
    return tuple(seen)


def find_pareto_front(
    rows: Sequence[Mapping[str, Any]], objectives: Sequence[str], directions: Sequence[Direction]
) -> list[int]:
    """Return the positions of the rows that no other row dominates, in the given order.

    A row dominates another if it is at least as good in every objective and better in one; equal rows do not dominate
    each other. A row in which an objective is missing or not finite is ignored.
    """
    signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
    costs: dict[int, tuple[float, ...]] = {}
    for position, row in enumerate(rows):
        values = [math.nan if row.get(name) is None else float(row[name]) for name in objectives]
        if all(map(math.isfinite, values)):
            # 9 digits: means of the same values in another order are equal
            costs[position] = tuple(float(f"{sign * value:.9g}") for sign, value in zip(signs, values, strict=True))
    front: dict[tuple[float, ...], None] = {}
    for cost in sorted(set(costs.values())):  # in this order, a point comes after all points that dominate it
        if not any(all(left <= right for left, right in zip(other, cost, strict=True)) for other in front):
            front[cost] = None
    return [position for position, cost in costs.items() if cost in front]

"""Resume is replay: a study's rows, fed through the code that made them.

Ended trials are told to the search again, recorded epochs pass the stopping rule in the order in which they were
recorded, and trials that were running are put in front of the queue. Nothing else is kept from one run to the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from study.cells import CellState
from study.errors import InputError
from study.flow import Flow, Run
from study.trial import Trial, TrialState

Rows = list[dict[str, Any]]


def replay(flow: Flow) -> None:
    """Bring a new Flow to where its records left off.

    Raises InputError if a trial on record belongs to a cell that the study does not have.
    """
    trials = {row["trial_id"]: row for row in flow.records.trials.rows()}
    epochs: dict[str, Rows] = {trial_id: [] for trial_id in trials}
    verdicts: dict[str, str | None] = {}
    for row in flow.records.epochs.rows():
        trial = trials.get(row["trial_id"])
        if trial is None:
            continue  # its trial's segment is gone: that trial is run again
        epochs[row["trial_id"]].append(row)
        if row["phase"] == "search":
            cell, score = _cell(flow, trial), row[flow.study.metric]
            verdicts[row["trial_id"]] = cell.verdict(trial["number"], row["epoch"], score)
    for trial_id, row in trials.items():
        run = _run(flow, row, epochs[trial_id])
        if TrialState(row["state"]).ended:
            _restore_ended(flow, run, row, epochs[trial_id])
        else:
            _restore_open(flow, run, epochs[trial_id], verdicts.get(trial_id))


def _run(flow: Flow, row: Mapping[str, Any], epochs: Rows) -> Run:
    trial = Trial(
        phase=row["phase"],
        student=row["student"],
        arm=row["arm"],
        number=row["number"],
        seed=row["seed"],
        epochs=row["epochs"],
        params=json.loads(row["params"]),
        config=json.loads(row["config"]),
    )
    last = epochs[-1] if epochs else {}
    metrics = {name: last[name] for name in flow.study.task.metrics if last.get(name) is not None}
    seconds = sum(epoch["seconds"] for epoch in epochs)
    return Run(trial, row["started"], last.get("epoch", 0), seconds, metrics, row["worker"])


def _restore_ended(flow: Flow, run: Run, row: Mapping[str, Any], epochs: Rows) -> None:
    state = TrialState(row["state"])
    if run.trial.phase != "prepare":  # what was prepared is found where it is kept, not in the rows
        score = row[flow.study.metric] if state is TrialState.COMPLETE else None
        _cell(flow, row).restore_ended(run.trial, state, row["reason"], score, _scores(flow, epochs))


def _restore_open(flow: Flow, run: Run, epochs: Rows, verdict: str | None) -> None:
    """A trial that was running: what its last recorded epoch had decided is decided now, else it goes on."""
    trial = run.trial
    if trial.phase != "prepare":
        flow.cells[trial.cell].restore_open(trial, _scores(flow, epochs))
    flow.running[trial.id] = run
    if run.epochs_done == trial.epochs:
        flow.end(run, TrialState.COMPLETE, "")
    elif verdict:
        flow.end(run, TrialState.PRUNED, verdict)
    else:
        flow.resumable.append(flow.running.pop(trial.id))


def _scores(flow: Flow, epochs: Rows) -> dict[int, float]:
    return {row["epoch"]: row[flow.study.metric] for row in epochs}


def _cell(flow: Flow, row: Mapping[str, Any]) -> CellState:
    if row["cell"] not in flow.cells:
        raise InputError(
            f"trial {row['trial_id']} on record belongs to cell {row['cell']!r}, which this study does not have; "
            "start a new study with --fresh or another --name"
        )
    return flow.cells[row["cell"]]

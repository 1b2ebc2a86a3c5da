"""Resume is replay: a study's rows, fed through the code that made them.

Ended trials are told to the search again, recorded epochs pass the stopping rule in the order in which they were
recorded, and trials that were running are put in front of the queue. Nothing else is kept from one run to the next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from study.cells import CellState
from study.errors import InputError
from study.flow import Flow, Run
from study.trial import Trial, TrialState

Rows = list[dict[str, Any]]


def replay(flow: Flow, retry_failed: bool = False) -> None:
    """Bring a new Flow to where its records left off; with `retry_failed`, failed trials are open again.

    A trial some of whose rows are lost counts as never run. Raises InputError if a trial on record belongs to a cell
    that the study does not have.
    """
    recorded = flow.records.epochs.rows()
    epochs: dict[str, Rows] = {}
    for row in recorded:
        epochs.setdefault(row["trial_id"], []).append(row)
    whole = [row for row in flow.records.trials.rows() if len(epochs.get(row["trial_id"], [])) >= row["epochs_done"]]
    runs = [(_run(flow, row, epochs.get(row["trial_id"], [])), row) for row in sorted(whole, key=_number)]
    verdicts = _verdicts(flow, {run.trial.id: run.trial for run, _ in runs}, recorded)
    for run, row in runs:
        state, told = TrialState(row["state"]), epochs.get(run.trial.id, [])
        if state.ended and not (retry_failed and state is TrialState.FAILED):
            _restore_ended(flow, run, state, row["reason"], told)
        else:
            _restore_open(flow, run, told, verdicts.get(run.trial.id))


def _number(row: Mapping[str, Any]) -> int:
    return int(row["number"])


def _verdicts(flow: Flow, trials: Mapping[str, Trial], recorded: Rows) -> dict[str, str | None]:
    """What the stopping rule said of each search trial's last epoch, all epochs told in the order of recording."""
    verdicts: dict[str, str | None] = {}
    for row in recorded:
        trial = trials.get(row["trial_id"])
        if trial is not None and trial.phase == "search" and _usable(row[flow.study.metric]):
            verdicts[trial.id] = _cell(flow, trial).verdict(trial.number, row["epoch"], row[flow.study.metric])
    return verdicts


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


def _restore_ended(flow: Flow, run: Run, state: TrialState, reason: str, epochs: Rows) -> None:
    if run.trial.phase != "prepare":  # what was prepared is found where it is kept, not in the rows
        score = run.metrics.get(flow.study.metric) if state is TrialState.COMPLETE else None
        _cell(flow, run.trial).restore_ended(run.trial, state, reason, score, _scores(flow, epochs))


def _restore_open(flow: Flow, run: Run, epochs: Rows, verdict: str | None) -> None:
    """A trial that was running: what its last recorded epoch had decided is decided now, else it goes on."""
    trial = run.trial
    if trial.phase != "prepare":
        _cell(flow, trial).restore_open(trial, _scores(flow, epochs))
    flow.running[trial.id] = run
    fault = flow.fault(run) if run.epochs_done else ""
    if fault:
        flow.end(run, TrialState.FAILED, fault)
    elif run.epochs_done == trial.epochs:
        flow.end(run, TrialState.COMPLETE, "")
    elif verdict:
        flow.end(run, TrialState.PRUNED, verdict)
    else:
        flow.resumable.append(flow.running.pop(trial.id))


def _scores(flow: Flow, epochs: Rows) -> dict[int, float]:
    """Search scores by epoch; those that could not be used are left out, as they were when they came."""
    return {row["epoch"]: row[flow.study.metric] for row in epochs if _usable(row[flow.study.metric])}


def _usable(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _cell(flow: Flow, trial: Trial) -> CellState:
    if trial.cell not in flow.cells:
        raise InputError(
            f"trial {trial.id} on record belongs to cell {trial.cell!r}, which this study does not have; "
            "start a new study with --fresh or another --name"
        )
    return flow.cells[trial.cell]

"""Resume is replay: a study's rows, fed through the code that made them.

Ended trials are told to the search again, recorded epochs pass the stopping rule in the order in which they were
recorded, and trials that were running are put in front of the queue. Nothing else is kept from one run to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from study.cells import CellState
from study.errors import InputError
from study.flow import Earlier, Flow
from study.rows import Run, trial_of
from study.spending import gpu_seconds, wall_seconds
from study.trial import Trial, TrialState

Rows = list[dict[str, Any]]


def replay(flow: Flow, retry_failed: bool = False, starts: Sequence[datetime] = ()) -> None:
    """Bring a new Flow to where its records left off; with `retry_failed`, failed trials are open again.

    `starts` says when each earlier run began. A trial some of whose rows are lost counts as never run. Raises
    InputError if a trial on record belongs to a cell that the study does not have.
    """
    recorded, trials = flow.records.epochs.rows(), flow.records.trials.rows()
    epochs: dict[str, Rows] = {}
    for row in recorded:
        epochs.setdefault(row["trial_id"], []).append(row)
    flow.gpu_seconds = gpu_seconds(trials)
    flow.wall_seconds_before = wall_seconds(starts, _signs_of_life(trials, recorded))
    whole = [row for row in trials if len(epochs.get(row["trial_id"], [])) >= row["epochs_done"]]
    runs = [(_run(flow, row, epochs.get(row["trial_id"], [])), row) for row in sorted(whole, key=_number)]
    verdicts = _verdicts(flow, {run.trial.id: run.trial for run, _ in runs}, recorded)
    for run, row in runs:
        state, told = TrialState(row["state"]), epochs.get(run.trial.id, [])
        if state is TrialState.FAILED and retry_failed:
            state = TrialState.INTERRUPTED
        if run.trial.phase == "search":
            _restore_search(flow, run, state, row["reason"], _scores(flow, told))
        if run.trial.phase != "confirm" and not state.ended:
            _restore_open(flow, run, verdicts.get(run.trial.id))
        if run.trial.phase == "confirm":
            flow.earlier[_cell(flow, run.trial).name].append(_ended_by_now(flow, Earlier(run, state, row["reason"])))
    for cell in flow.cells.values():
        flow.problem = flow.problem or cell.hopeless
        flow.settle(cell)
    flow.flush()


def _number(row: Mapping[str, Any]) -> int:
    return int(row["number"])


def _signs_of_life(trials: Rows, epochs: Rows) -> list[datetime]:
    return [row["recorded"] for row in epochs] + [row["ended"] for row in trials if row["ended"] is not None]


def _verdicts(flow: Flow, trials: Mapping[str, Trial], recorded: Rows) -> dict[str, str | None]:
    """What the stopping rule said of each search trial's last epoch, all epochs told in the order of recording."""
    verdicts: dict[str, str | None] = {}
    for row in recorded:
        trial = trials.get(row["trial_id"])
        if trial is not None and trial.phase == "search" and _usable(row[flow.study.metric]):
            verdicts[trial.id] = _cell(flow, trial).verdict(trial.number, row["epoch"], row[flow.study.metric])
    return verdicts


def _run(flow: Flow, row: Mapping[str, Any], epochs: Rows) -> Run:
    last = epochs[-1] if epochs else {}
    metrics = {name: last[name] for name in flow.study.task.metrics if last.get(name) is not None}
    seconds = sum(epoch["seconds"] for epoch in epochs)
    return Run(trial_of(row), row["started"], last.get("epoch", 0), seconds, metrics, row["worker"])


def _restore_search(flow: Flow, run: Run, state: TrialState, reason: str, scores: Mapping[int, float]) -> None:
    cell = _cell(flow, run.trial)
    if state.ended:
        cell.restore_search(run, state, reason, scores)
    else:
        cell.reopen_search(run.trial, scores)


def _restore_open(flow: Flow, run: Run, verdict: str | None) -> None:
    """A trial that was running: what its last recorded epoch had decided is decided now, else it goes on."""
    flow.running[run.trial.id] = run
    fault = flow.fault(run) if run.epochs_done else ""
    if fault:
        flow.end(run, TrialState.FAILED, fault)
    elif run.epochs_done == run.trial.epochs:
        flow.end(run, TrialState.COMPLETE, "")
    elif verdict:
        flow.end(run, TrialState.PRUNED, verdict)
    else:
        flow.resumable.append(flow.running.pop(run.trial.id))


def _ended_by_now(flow: Flow, earlier: Earlier) -> Earlier:
    """A confirm trial cut off between its last epoch's row and its own has ended, and is written down as ended."""
    run = earlier.run
    if earlier.state.ended or run.epochs_done < run.trial.epochs:
        return earlier
    fault = flow.fault(run)
    state = TrialState.FAILED if fault else TrialState.COMPLETE
    flow.record(run, state, fault)
    return Earlier(run, state, fault)


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

"""Resume is replay: a study's rows, fed through the code that made them.

Ended trials are told to the search again, recorded epochs pass the stopping rule in the order in which they were
recorded, and trials that were running are put in front of the queue. Nothing else is kept from one run to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from study.engine.cell import CellProgress
from study.engine.coordinator import Coordinator, Earlier, preparation_trial
from study.engine.usage import gpu_seconds, wall_seconds
from study.errors import InputError
from study.records.rows import RunningTrial, trial_of
from study.trial import Trial, TrialState

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RecordedTrial:
    """A trial on record: its run, how it stood, its epochs from the first one on."""

    run: RunningTrial
    state: TrialState
    reason: str
    epochs: Rows
    at: datetime | None
    """When it ended, or told its last epoch."""


def replay(flow: Coordinator, retry_failed: bool = False, runs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Bring a new Flow to where its records left off; with `retry_failed`, failed trials are open again.

    `runs` are the earlier runs as study.json lists them. A trial some of whose rows are lost counts as never run.
    Raises InputError if a trial on record belongs to a cell that the study does not have.
    """
    recorded, trials = flow.records.epochs.rows(), flow.records.trials.rows()
    flow.gpu_seconds = gpu_seconds(trials, recorded)
    flow.wall_seconds_before = wall_seconds(runs, _signs_of_life(trials, recorded))
    epochs = _by_trial(recorded)
    told = [_told(flow, row, epochs.get(row["trial_id"], []), retry_failed) for row in sorted(trials, key=_number)]
    verdicts = _verdicts(flow, {one.run.trial.id: one.run for one in told if one is not None}, recorded)
    steps = {preparation_trial(step).id for step in flow.preparations}
    for one in told:
        if one is None:
            continue
        trial = one.run.trial
        if trial.phase == "confirm":
            flow.earlier[_cell(flow, trial).name].append(_earlier(flow, one))
        elif trial.phase == "search":
            _restore_search(flow, one, verdicts.get(trial.id))
        elif not one.state.is_finished and trial.id in steps:
            if one.run.epochs_done == trial.epochs:  # done once, and what it made is gone
                one = replace(one, run=RunningTrial(trial, one.run.started, start_over=True), epochs=[])
            _restore_open(flow, one, None)
        elif not one.state.is_finished:  # what is prepared is found where it is kept, not in the rows
            flow.record(one.run, TrialState.SUPERSEDED, "not needed any more, or not in this form", one.at)
    for cell in flow.cells.values():
        flow.reconcile_confirms(cell)
        flow.problem = flow.problem or cell.fail_fast_reason
    flow.flush()


def _number(row: Mapping[str, Any]) -> int:
    return int(row["number"])


def _signs_of_life(trials: Rows, epochs: Rows) -> list[datetime]:
    return [row["recorded"] for row in epochs] + [row["ended"] for row in trials if row["ended"] is not None]


def _by_trial(recorded: Rows) -> dict[str, Rows]:
    epochs: dict[str, Rows] = {}
    for row in recorded:
        epochs.setdefault(row["trial_id"], []).append(row)
    return {trial_id: sorted(rows, key=lambda row: int(row["epoch"])) for trial_id, rows in epochs.items()}


def _told(flow: Coordinator, row: Mapping[str, Any], epochs: Rows, retry_failed: bool) -> RecordedTrial | None:
    """A row of trials/ with its epochs; None for a trial that no longer counts, which is written down as such."""
    trial, state = trial_of(row), TrialState(row["state"])
    at = row["ended"] or (epochs[-1]["recorded"] if epochs else row["started"])
    resources, code = {name: row[name] for name in ("device", "cpus", "gpus")}, row["code"] or ""
    if [epoch["epoch"] for epoch in epochs] != [*range(1, len(epochs) + 1)] or len(epochs) < row["epochs_done"]:
        if state is not TrialState.SUPERSEDED:
            flow.record(
                RunningTrial(trial, row["started"], resources=resources, code=code),
                TrialState.SUPERSEDED,
                "some of its rows are lost",
                at,
            )
        return None
    if state is TrialState.SUPERSEDED and trial.phase != "confirm":
        return None
    run = RunningTrial(trial, row["started"], worker=row["worker"], resources=resources, code=code)
    if epochs:
        run.epochs_done, run.seconds = len(epochs), sum(epoch["seconds"] for epoch in epochs)
        names = flow.study.task.metrics
        run.metrics = {name: epochs[-1][name] for name in names if epochs[-1].get(name) is not None}
    if state is TrialState.FAILED and retry_failed:
        state = TrialState.INTERRUPTED
        if run.epochs_done and flow.fault(run):  # its last epoch is what failed
            run, epochs = RunningTrial(trial, row["started"], start_over=True), []
    return RecordedTrial(run, state, row["reason"], epochs, at)


def _verdicts(flow: Coordinator, runs: Mapping[str, RunningTrial], recorded: Rows) -> dict[str, str | None]:
    """What the stopping rule said of each search trial's last epoch, all epochs told in the order of recording."""
    verdicts: dict[str, str | None] = {}
    for row in recorded:
        run = runs.get(row["trial_id"])
        if run is None or run.trial.phase == "prepare":
            continue
        _cell(flow, run.trial).got_going = True
        if run.trial.phase == "search" and not run.start_over and _usable(row[flow.study.metric]):
            verdict = _cell(flow, run.trial).verdict(run.trial.number, row["epoch"], row[flow.study.metric])
            verdicts[run.trial.id] = verdict
    return verdicts


def _restore_search(flow: Coordinator, one: RecordedTrial, verdict: str | None) -> None:
    cell, scores = _cell(flow, one.run.trial), _scores(flow, one.epochs)
    if one.state.is_finished:
        cell.restore_search(one.run, one.state, one.reason, scores)
    else:
        cell.reopen_search(one.run.trial, scores)
        _restore_open(flow, one, verdict)


def _restore_open(flow: Coordinator, one: RecordedTrial, verdict: str | None) -> None:
    """A trial that was running: what its last recorded epoch had decided is decided now, else it goes on."""
    run = one.run
    flow.running[run.trial.id] = run
    fault = flow.fault(run) if run.epochs_done else ""
    if fault:
        flow.end(run, TrialState.FAILED, fault, one.at)
    elif run.epochs_done == run.trial.epochs:
        flow.end(run, TrialState.COMPLETE, "", one.at)
    elif verdict:
        flow.end(run, TrialState.PRUNED, verdict, one.at)
    else:
        flow.resumable.append(flow.running.pop(run.trial.id))


def _earlier(flow: Coordinator, one: RecordedTrial) -> Earlier:
    """A confirm trial: one cut off between its last epoch's row and its own has ended, and is written down as ended."""
    run, state, reason = one.run, one.state, one.reason
    if not state.is_finished and run.epochs_done == run.trial.epochs:
        reason = flow.fault(run)
        state = TrialState.FAILED if reason else TrialState.COMPLETE
        flow.record(run, state, reason, one.at)
    return Earlier(run, state, reason, one.at)


def _scores(flow: Coordinator, epochs: Rows) -> dict[int, float]:
    """Search scores by epoch; those that could not be used are left out, as they were when they came."""
    return {row["epoch"]: row[flow.study.metric] for row in epochs if _usable(row[flow.study.metric])}


def _usable(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _cell(flow: Coordinator, trial: Trial) -> CellProgress:
    if trial.cell not in flow.cells:
        raise InputError(
            f"trial {trial.id} on record belongs to cell {trial.cell!r}, which this study does not have; "
            "start a new study with --fresh or another --name"
        )
    return flow.cells[trial.cell]

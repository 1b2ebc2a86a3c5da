"""Resume by replay: the rows of a study, passed through the code that produced them.

Ended trials are reported to the search again, recorded epochs pass the stopping rule in the order of recording, and
trials that were running go to the front of the queue. The rows are the only state kept between runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from study.engine.cell import CellProgress, RecordedTrial
from study.engine.coordinator import Coordinator
from study.engine.student_costs import explain_violation
from study.engine.trials import find_fault, make_preparation_trial
from study.engine.usage import sum_gpu_seconds, sum_wall_seconds
from study.errors import InputError
from study.records.rows import RunningTrial, is_finite, to_trial
from study.trial import Trial, TrialState

Rows = list[dict[str, Any]]

MADE = "its files are complete; its last rows were lost with the run that made them"
NOT_NEEDED = "no longer needed, or not in this form"

DELETED_WITHIN = timedelta(minutes=1)
"""Time within which the checkpoint of a search trial is deleted after its end, unless the driver is killed."""


def replay_records(
    coordinator: Coordinator, retry_failed: bool = False, runs: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Bring a new Coordinator to the state of its records; with `retry_failed`, failed trials are open again.

    `runs` are the earlier runs as study.json lists them. A trial with lost rows counts as never run.
    Raises InputError if a recorded trial belongs to a cell that the study does not have.
    """
    records = coordinator.writer.records
    epochs, trials = records.epochs.read_rows(), records.trials.read_rows()
    ended = [row["ended"] for row in trials if row["ended"] is not None]
    usage = coordinator.usage
    usage.earlier_wall_seconds = sum_wall_seconds(runs, [*(row["recorded"] for row in epochs), *ended])
    usage.gpu_seconds = sum_gpu_seconds(trials, epochs)
    by_trial = _group_by_trial(epochs)
    rows = sorted(trials, key=lambda row: int(row["number"]))
    read = [
        _read_trial(coordinator, row, by_trial.get(row["trial_id"], []), retry_failed and not _is_replaced(row, rows))
        for row in rows
    ]
    recorded = _drop_orphans(coordinator, [one for one in read if one is not None])
    stop_reasons = _replay_epochs(coordinator, {one.run.trial.id: one.run for one in recorded}, epochs)
    steps = {make_preparation_trial(step).id for step in coordinator.queue.preparations}
    for one in recorded:
        trial = one.run.trial
        if trial.phase == "confirm":
            _find_cell(coordinator, trial).earlier_confirms.append(_end_if_trained(coordinator, one))
        elif trial.phase == "search":
            _restore_search(coordinator, one, stop_reasons.get(trial.id))
        elif not one.state.is_finished:
            _restore_preparation(coordinator, one, trial.id in steps)
    _mark_left_checkpoints(coordinator, recorded)
    coordinator.finish_restore()


def _group_by_trial(recorded: Rows) -> dict[str, Rows]:
    epochs: dict[str, Rows] = {}
    for row in recorded:
        epochs.setdefault(row["trial_id"], []).append(row)
    return {trial_id: sorted(rows, key=lambda row: int(row["epoch"])) for trial_id, rows in epochs.items()}


def _read_trial(
    coordinator: Coordinator, row: Mapping[str, Any], epochs: Rows, retry_failed: bool
) -> RecordedTrial | None:
    """Return a row of trials/ with its epochs; None if it does not count. A trial with lost rows is superseded."""
    trial, state = to_trial(row), TrialState(row["state"])
    at = row["ended"] or (epochs[-1]["recorded"] if epochs else row["started"])
    resources, code = {name: row[name] for name in ("device", "cpus", "gpus")}, row["code"] or ""
    first = trial.start_epoch + 1
    if [epoch["epoch"] for epoch in epochs] != [*range(first, first + len(epochs))] or len(epochs) < row["epochs_done"]:
        if state is not TrialState.SUPERSEDED:
            run = RunningTrial(trial, row["started"], resources=resources, code=code)
            coordinator.writer.add_state(run, TrialState.SUPERSEDED, "some of its rows are lost", at)
        return None
    if state is TrialState.SUPERSEDED and trial.phase != "confirm":
        return None
    run = RunningTrial(trial, row["started"], worker=row["worker"], resources=resources, code=code)
    if epochs:
        run.epochs_done, run.seconds = len(epochs), sum(epoch["seconds"] for epoch in epochs)
        names = coordinator.study.metrics
        run.metrics = {name: epochs[-1][name] for name in names if epochs[-1].get(name) is not None}
    else:  # of a student above a limit, which was not trained
        run.metrics = {name: row[name] for name in coordinator.study.costs if row.get(name) is not None}
    coordinator.costs.add(trial, run.metrics)
    if state is TrialState.FAILED and retry_failed:
        state = TrialState.INTERRUPTED
        is_copied = trial.link is not None and trial.link.parent and not epochs  # its copy may be what it failed by
        if is_copied or (run.epochs_done and find_fault(coordinator.study, run)):  # it failed by its last epoch
            run, epochs = RunningTrial(trial, row["started"], start_over=True), []
    return RecordedTrial(run, state, row["reason"], epochs, at)


def _is_replaced(row: Mapping[str, Any], rows: Rows) -> bool:
    """Return whether a link of a chain failed and its member has since copied another, or the search is over."""
    if row["member"] is None:
        return False
    others = [other for other in rows if other["cell"] == row["cell"] and other["phase"] == "search"]
    is_last = row["end_epoch"] == row["epochs"]
    return any(
        other["state"] == TrialState.COMPLETE and other["end_epoch"] == other["epochs"]
        if is_last
        else other["member"] == row["member"] and other["start_epoch"] > row["start_epoch"]
        for other in others
    )


def _drop_orphans(coordinator: Coordinator, recorded: list[RecordedTrial]) -> list[RecordedTrial]:
    """Supersede links of chains whose parent does not count, because some of its rows are lost."""
    ids, kept = set[str](), list[RecordedTrial]()
    for one in recorded:  # parents first, in order of their number
        link = one.run.trial.link
        if link is None or not link.parent or link.parent in ids:
            ids.add(one.run.trial.id)
            kept.append(one)
        else:
            coordinator.writer.add_state(one.run, TrialState.SUPERSEDED, "rows of its parent are lost", one.at)
    return kept


def _replay_epochs(coordinator: Coordinator, runs: Mapping[str, RunningTrial], epochs: Rows) -> dict[str, str | None]:
    """Pass all epochs through the stopping rule in the order of recording; return its last answer by search trial."""
    stop_reasons: dict[str, str | None] = {}
    metric = coordinator.study.metric
    for row in epochs:
        run = runs.get(row["trial_id"])
        if run is None or run.trial.phase == "prepare":
            continue
        cell = _find_cell(coordinator, run.trial)
        cell.has_epochs = True
        is_judged = is_finite(row[metric]) and not explain_violation(coordinator.study, row)
        if run.trial.phase == "search" and not run.start_over and is_judged:
            stop_reasons[run.trial.id] = cell.search.check_stopping_rule(run.trial, row["epoch"], row[metric])
    return stop_reasons


def _restore_preparation(coordinator: Coordinator, one: RecordedTrial, is_needed: bool) -> None:
    """Reopen a preparation that had not ended; whether its files exist was checked on disk, not in the rows."""
    if not is_needed:
        is_made = one.run.trial.id in _list_all_steps(coordinator)
        state, reason = (TrialState.COMPLETE, MADE) if is_made else (TrialState.SUPERSEDED, NOT_NEEDED)
        coordinator.writer.add_state(one.run, state, reason, one.at)
        return
    if one.run.epochs_done == one.run.trial.epochs:  # it was done, and its files are gone
        one = replace(one, run=RunningTrial(one.run.trial, one.run.started, start_over=True), epochs=[])
    coordinator.restore_open_trial(one.run, None, one.at)


def _list_all_steps(coordinator: Coordinator) -> set[str]:
    """Return the trial ids of all preparations of the study, done or not."""
    study, nowhere = coordinator.study, coordinator.writer.records.folder / "no such storage"
    try:
        return {make_preparation_trial(step).id for step in study.task.list_preparations(nowhere, study.plan)}
    except InputError:  # such as a disk without space to do them again
        return set()


def _restore_search(coordinator: Coordinator, one: RecordedTrial, stop_reason: str | None) -> None:
    cell, metric = _find_cell(coordinator, one.run.trial), coordinator.study.metric
    # epochs without a finite score, or above a limit, were not reported to the search when they were trained either
    is_allowed = not explain_violation(coordinator.study, one.run.metrics)
    scores = {row["epoch"]: row[metric] for row in one.epochs if is_allowed and is_finite(row[metric])}
    if one.state.is_finished:
        cell.search.restore(one.run, one.state, one.reason, scores)
        cell.note_failure(one.run, one.state, one.reason)
    else:
        cell.search.reopen(one.run.trial, scores)
        coordinator.restore_open_trial(one.run, stop_reason, one.at)


def _mark_left_checkpoints(coordinator: Coordinator, recorded: Sequence[RecordedTrial]) -> None:
    """Let checkpoints be deleted that a killed driver may have left: those of search trials that ended last.

    To look for all would take a request for each trial of a study on S3. Links of chains are not among them.
    """
    latest = max((one.at for one in recorded if one.at is not None), default=None)
    for one in recorded:
        has_ended = one.state.is_finished and one.run.trial.phase == "search" and one.run.trial.link is None
        if has_ended and latest is not None and one.at is not None and latest - one.at <= DELETED_WITHIN:
            coordinator.writer.mark_obsolete(one.run.trial.id, failed=one.state is TrialState.FAILED)


def _end_if_trained(coordinator: Coordinator, one: RecordedTrial) -> RecordedTrial:
    """Return a confirm trial; one that was cut off between the rows of its last epoch and of its end has ended."""
    if one.state.is_finished or one.run.epochs_done < one.run.trial.epochs:
        return one
    fault = find_fault(coordinator.study, one.run)
    one = replace(one, state=TrialState.FAILED if fault else TrialState.COMPLETE, reason=fault)
    coordinator.writer.add_state(one.run, one.state, fault, one.at)
    return one


def _find_cell(coordinator: Coordinator, trial: Trial) -> CellProgress:
    if trial.cell not in coordinator.cells:
        raise InputError(
            f"trial {trial.id} on record belongs to cell {trial.cell!r}, which this study does not have: "
            "start a new study with --fresh or another --name"
        )
    return coordinator.cells[trial.cell]

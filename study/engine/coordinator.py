"""The coordinator decides what a study runs next (study/engine/trial_queue.py has the order), and what ends a trial.

Bookkeeping only: study/execution/tune.py runs the trials. All state follows from the rows, so a new Coordinator over
the rows of an earlier run is that study, resumed (study/engine/replay.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna

from study.engine.cell import CellProgress
from study.engine.confirm_points import decide_points, reconcile_confirms
from study.engine.record_writer import FLUSH_SECONDS, RecordWriter
from study.engine.student_costs import StudentCosts, explain_violation
from study.engine.trial_queue import TrialQueue
from study.engine.trials import find_fault
from study.engine.usage import Usage, find_exhausted_cap
from study.records.parquet_table import Records
from study.records.rows import RunningTrial
from study.space.params import Params
from study.study import Study
from study.task import Preparation
from study.trackers.base import Tracker
from study.trial import SKIPPED, EpochResult, TrialState


class Coordinator:
    """One study in progress: `next_trial` hands out trials, `report`, `fail` and `requeue` take their outcome.

    `preparations` and `fingerprints` are those of its TrialQueue; `warm` holds a warm start's points by cell
    (study/engine/warm_start.py); `code` is the digest of the running code, for the rows.
    """

    def __init__(
        self,
        study: Study,
        records: Records,
        journal: optuna.storages.BaseStorage,
        preparations: list[Preparation],
        fingerprints: Mapping[str, str],
        warm: Mapping[str, Sequence[Params]] | None = None,
        trackers: Sequence[Tracker] = (),
        code: str = "",
        flush_seconds: float = FLUSH_SECONDS,
    ):
        self.study, self.usage, self.costs = study, Usage(), StudentCosts(study)
        self.writer = RecordWriter(records, trackers, flush_seconds)
        self.problem = ""
        """Why the study cannot continue: a failed preparation, or a cell in which every trial fails."""
        warm = warm or {}
        self.cells = {cell.name: CellProgress(study, cell, journal, warm.get(cell.name, ())) for cell in study.cells}
        self.queue = TrialQueue(study, self.cells, self.costs, preparations, fingerprints)
        self.running: dict[str, RunningTrial] = {}
        self.skips: frozenset[str] = frozenset()
        """Ids of search trials that the user ends: each is pruned at its next epoch."""
        self.epoch_seconds: deque[float] = deque(maxlen=200)
        """Durations of the latest epochs, for the estimate of the time left."""
        self.resources: Mapping[str, Any] = {}
        """The columns device, cpus and gpus of trials that start from now on."""
        self._code = code

    # -- calls of the executor -------------------------------------------------------------------------------------

    def next_trial(self) -> RunningTrial | None:
        """Return the trial to start now; None if there is none until a running one ends, or at all."""
        if self.over_budget or self.problem:
            return None
        run = self.queue.pop_resumable() or self._make_next_run()
        if run is not None:
            self._start(run)
        self.writer.flush_if_due()
        return run

    def report(self, trial_id: str, row: EpochResult, worker: str) -> bool:
        """Record an epoch; return whether it ended the trial: as its last, by a fault, the stopping rule or by hand.

        A skipped trial waits for its epoch, so that its last score stands in the rows, from which resuming replays it.
        """
        run = self.running[trial_id]
        if row["epoch"] <= run.epoch:
            return False  # a restarted worker repeats epochs that are on record
        self._record_epoch(run, row, worker)
        fault = find_fault(self.study, run)
        self._end_if_decided(run, fault, "" if fault else self._find_stop_reason(run))
        ended = trial_id not in self.running
        if run.trial.link:
            self._release_checkpoints(self.cells[run.trial.cell])  # after its first epoch that of its parent, for one
        elif ended and run.trial.phase != "confirm":  # only confirmed students' weights are worth keeping
            self.writer.mark_obsolete(trial_id)
        self.writer.flush_if_due()
        return ended

    def fail(self, trial_id: str, reason: str, worker: str = "") -> None:
        """End a trial as failed; the study continues without it."""
        run = self.running[trial_id]
        run.worker = worker or run.worker
        self._end(run, TrialState.FAILED, reason)
        if run.trial.link:
            self._release_checkpoints(self.cells[run.trial.cell])
        self.writer.flush_if_due()

    def requeue(self, trial_id: str) -> None:
        """Queue a trial that lost its worker, to be resumed from its checkpoint."""
        self.queue.resumable.append(self.running.pop(trial_id))

    def interrupt(self, reason: str) -> None:
        """Stop the study; the next run resumes the running trials."""
        for run in self.running.values():
            self.writer.add_state(run, TrialState.INTERRUPTED, reason)
        self.queue.resumable += self.running.values()
        self.running = {}
        self.writer.flush()

    # -- state of the study ----------------------------------------------------------------------------------------

    @property
    def over_budget(self) -> str:
        """The exhausted cap of the budget; empty while there is none."""
        return find_exhausted_cap(self.study.budget, self.usage.wall_seconds, self.usage.gpu_seconds)

    @property
    def done(self) -> bool:
        """Every cell is confirmed with every seed: nothing is left to train."""
        return all(cell.done for cell in self.cells.values())

    @property
    def has_no_work(self) -> bool:
        """Nothing is left to train: every cell is done, or what it lacks has failed."""
        return not self.running and self.queue.is_empty

    @property
    def problems(self) -> list[str]:
        """Reasons why cells are not complete, once nothing is left to run."""
        if self.problem:
            return [self.problem]
        open_cells = [(name, cell) for name, cell in self.cells.items() if not cell.done]
        return [f"{name}: {cell.problem or 'not complete'}" for name, cell in open_cells]

    # -- the start of a trial --------------------------------------------------------------------------------------

    def _make_next_run(self) -> RunningTrial | None:
        """Return a new trial, after ending those before it that are not trained."""
        while not self.problem and (new := self.queue.find_next(self.running.values())):
            run = RunningTrial(new.trial, datetime.now(UTC))
            if new.state is None:
                return run
            run.code, run.metrics = self._code, self.costs.find(new.trial)
            self.running[new.trial.id] = run
            self._end(run, new.state, new.reason)
            self._release_checkpoints(self.cells[new.trial.cell])
        return None

    def _start(self, run: RunningTrial) -> None:
        run.resources, run.costs = self.resources, self.costs.find(run.trial)
        run.continue_with(self._code)
        self.running[run.trial.id] = run
        self.writer.add_state(run, TrialState.RUNNING, "")
        if run.trial.phase == "prepare" or run.trial.link:
            # before its files are made: after a kill they are known as this study's, and a copy is of the same parent
            self.writer.flush()

    # -- an epoch, and the end of a trial --------------------------------------------------------------------------

    def _record_epoch(self, run: RunningTrial, row: EpochResult, worker: str) -> None:
        row = {**row, "metrics": row["metrics"] | self.costs.add(run.trial, row["metrics"])}
        if worker != run.worker:  # `show` reads the worker from the row
            run.worker = worker
            self.writer.add_state(run, TrialState.RUNNING, "")
        self.writer.add_epoch(run, row, worker)
        self.usage.gpu_seconds += row["seconds"] * float(run.resources.get("gpus") or 0.0)
        if run.trial.phase != "prepare":
            self.cells[run.trial.cell].has_epochs = True
            self.epoch_seconds.append(row["seconds"])

    def _find_stop_reason(self, run: RunningTrial) -> str | None:
        """Return why a search trial ends after this epoch, by the stopping rule or by hand; None if it does not."""
        if run.trial.phase != "search" or explain_violation(self.study, run.metrics):
            return None
        skipped = f"{SKIPPED} after epoch {run.epoch}" if run.trial.id in self.skips else None
        return self.cells[run.trial.cell].search.report_epoch(run) or skipped

    def _end_if_decided(self, run: RunningTrial, fault: str, stop: str | None, at: datetime | None = None) -> None:
        """End a trial if its last epoch decides it."""
        violation = explain_violation(self.study, run.metrics) if run.trial.phase == "search" else ""
        if fault:
            self._end(run, TrialState.FAILED, fault, at)
        elif violation:  # of a measured limit, also in the last epoch: a complete search trial can be chosen
            self._end(run, TrialState.PRUNED, violation, at)
        elif run.epoch == run.trial.end_epoch:
            self._end(run, TrialState.COMPLETE, "", at)
        elif stop:
            self._end(run, TrialState.PRUNED, stop, at)

    def _end(self, run: RunningTrial, state: TrialState, reason: str, at: datetime | None = None) -> None:
        """End a trial for its cell, the search and the records; `at` is its time if it ended before now."""
        trial = run.trial
        del self.running[trial.id]
        self.writer.add_state(run, state, reason, at)
        if trial.phase != "prepare":
            cell = self.cells[trial.cell]
            cell.end_trial(run, state, reason)
            self.problem = self.problem or cell.fail_fast_reason
            if trial.phase == "search":
                self._reconcile_confirms()
        elif state is TrialState.COMPLETE:
            self.queue.complete_preparation(trial)
        else:
            self.problem = f"{trial.arm} failed: {reason}"

    def _release_checkpoints(self, cell: CellProgress) -> None:
        """Note which checkpoints no link needs any more; not during a replay, before all links are known."""
        for trial_id, state in cell.search.release_checkpoints():
            self.writer.mark_obsolete(trial_id, failed=state is TrialState.FAILED)

    def _reconcile_confirms(self) -> None:
        """Decide what cells confirm whose search is done, and which earlier confirm trials count for it."""
        decide_points(self.study, self.cells.values())
        for cell in self.cells.values():
            if cell.points is not None:
                self.queue.resumable += reconcile_confirms(self.study, cell, self.writer)

    def restore_open_trial(self, run: RunningTrial, stop_reason: str | None, at: datetime | None) -> None:
        """For replay.py: end a trial that was running if its last recorded epoch decides it; queue it otherwise."""
        self.running[run.trial.id] = run
        fault = find_fault(self.study, run) if run.epochs_done else ""
        self._end_if_decided(run, fault, stop_reason, at)
        if run.trial.id in self.running:
            self.requeue(run.trial.id)

    def finish_restore(self) -> None:
        """For replay.py: decide what follows from all restored trials together, and write its rows."""
        self._reconcile_confirms()
        for cell in self.cells.values():
            self._release_checkpoints(cell)
            self.problem = self.problem or cell.fail_fast_reason
        self.writer.flush()

"""The coordinator decides what a study runs next: preparations, then in each cell the search and the confirm trials.

Bookkeeping only: study/execution/tune.py runs the trials. All state follows from the rows, so a new Coordinator over
the rows of an earlier run is that study, resumed (study/engine/replay.py). Cells are independent: the confirm trials of
a cell start as soon as its own search is done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna

from study.engine.cell import CellProgress
from study.engine.confirm_points import decide_points, reconcile_confirms
from study.engine.population_cell import PopulationCell
from study.engine.record_writer import FLUSH_SECONDS, RecordWriter
from study.engine.student_costs import StudentCosts, explain_violation
from study.engine.trials import (
    find_fault,
    make_confirm_trial,
    make_preparation_trial,
    make_refused_trial,
    make_search_trial,
)
from study.engine.usage import Usage, find_exhausted_cap
from study.errors import InputError
from study.records.parquet_table import Records
from study.records.rows import RunningTrial
from study.space.params import Params
from study.study import Study
from study.task import Preparation
from study.trackers.base import Tracker
from study.trial import SKIPPED, EpochResult, Trial, TrialState


@dataclass(frozen=True)
class ObsoleteCheckpoint:
    """A checkpoint to delete once the rows of `since` are on disk: a resumed study may need it before."""

    trial_id: str
    failed: bool
    """The trial failed: its traceback stays."""
    since: float
    """The time at which it became dispensable, by time.monotonic."""


class Coordinator:
    """One study in progress: `next_trial` hands out trials, `report`, `fail` and `requeue` take their outcome.

    `preparations` are the steps still to be done before trials that need the teacher can start; `fingerprints` identify
    the inputs and enter every trial's configuration; `warm` holds a warm start's points by cell
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
        self.preparations = list(preparations)
        self.problem = ""
        """Why the study cannot continue: a failed preparation, or a cell in which every trial fails."""
        warm = warm or {}
        self.cells = {
            cell.name: (PopulationCell if cell.arm.search else CellProgress)(
                study, cell, journal, warm.get(cell.name, ())
            )
            for cell in study.cells
        }
        self.running: dict[str, RunningTrial] = {}
        self.resumable: list[RunningTrial] = []
        self.skips: frozenset[str] = frozenset()
        """Ids of search trials that the user ends: each is pruned at its next epoch."""
        self.epoch_seconds: deque[float] = deque(maxlen=200)
        """Durations of the latest epochs, for the estimate of the time left."""
        self.obsolete: deque[ObsoleteCheckpoint] = deque()
        """Checkpoints of chains that no other link needs, for the executor to delete."""
        self._fingerprints, self._code = fingerprints, code
        self._resources: Mapping[str, Any] = {}

    def set_resources(self, resources: Mapping[str, Any]) -> None:
        """Set the columns device, cpus and gpus of trials that start from now on."""
        self._resources = resources

    # -- calls of the executor -------------------------------------------------------------------------------------

    def next_trial(self) -> RunningTrial | None:
        """Return the trial to start now; None if there is none until a running one ends, or at all."""
        if self.over_budget:
            return None
        run = self._pop_resumable() or self._make_next_run()
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
        if run.trial.link:
            self._release_checkpoints(self.cells[run.trial.cell])  # after its first epoch that of its parent, for one
        self.writer.flush_if_due()
        return trial_id not in self.running

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
        self.resumable.append(self.running.pop(trial_id))

    def interrupt(self, reason: str) -> None:
        """Stop the study; the next run resumes the running trials."""
        for run in self.running.values():
            self.writer.add_state(run, TrialState.INTERRUPTED, reason)
        self.resumable += self.running.values()
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
    def problems(self) -> list[str]:
        """Reasons why cells are not complete, once nothing is left to run."""
        if self.problem:
            return [self.problem]
        open_cells = [(name, cell) for name, cell in self.cells.items() if not cell.done]
        return [f"{name}: {cell.problem or 'not complete'}" for name, cell in open_cells]

    # -- the queue, most urgent first ------------------------------------------------------------------------------

    def _start(self, run: RunningTrial) -> None:
        run.resources, run.costs = self._resources, self.costs.find(run.trial)
        run.continue_with(self._code)
        self.running[run.trial.id] = run
        self.writer.add_state(run, TrialState.RUNNING, "")
        if run.trial.phase == "prepare" or run.trial.link:
            # before its files are made: after a kill they are known as this study's, and a copy is of the same parent
            self.writer.flush()

    def _pop_resumable(self) -> RunningTrial | None:
        for index, run in enumerate(self.resumable):
            if run.trial.phase == "prepare" or self._is_ready(self.cells[run.trial.cell]):
                return self.resumable.pop(index)
        return None

    def _make_next_run(self) -> RunningTrial | None:
        trial = self._next_preparation() or self._next_search() or self._next_confirm()
        return None if trial is None else RunningTrial(trial, datetime.now(UTC))

    def _next_preparation(self) -> Trial | None:
        """Return the next step of the earliest stage that is not done; the steps of a stage run in parallel."""
        if not self.preparations or self.problem:
            return None
        stage = min(step.stage for step in self.preparations)
        started = {run.trial.id for run in (*self.running.values(), *self.resumable)}
        trials = (make_preparation_trial(step) for step in self.preparations if step.stage == stage)
        return next((trial for trial in trials if trial.id not in started), None)

    def _next_search(self) -> Trial | None:
        """Return the next search trial, of the cell with most of them left: its confirm trials wait for its search."""
        while open_cells := [cell for cell in self.cells.values() if cell.can_propose and self._is_ready(cell)]:
            progress = max(open_cells, key=lambda cell: cell.proposals_left)
            proposal = progress.propose()
            try:
                trial = make_search_trial(self.study, progress.cell, proposal, self._fingerprints)
            except InputError as error:  # values that the loss accepts one by one but not together
                trial = make_refused_trial(self.study, progress.cell, proposal, str(error))
                self._end_untrained(progress, trial, TrialState.FAILED, str(error))
                continue
            try:
                violation = self._find_violation(progress, trial)
            except Exception as error:  # of the net's own code: a combination that it cannot be built with
                self._end_untrained(progress, trial, TrialState.FAILED, f"{type(error).__name__}: {error}")
                continue
            if not violation:
                return trial
            # known before any epoch: training it would only measure a student that may not be chosen
            self._end_untrained(progress, trial, TrialState.PRUNED, violation)
        return None

    def _find_violation(self, progress: CellProgress, trial: Trial) -> str:
        """Return which limits the student of a new search trial exceeds, as far as that is known without training."""
        if not self.study.constraints:
            return ""
        student = progress.cell.configure(trial.params).student
        return explain_violation(self.study, self.costs.count_exact(trial, student))

    def _end_untrained(self, cell: CellProgress, trial: Trial, state: TrialState, reason: str) -> None:
        """End a search trial before its first epoch."""
        run = RunningTrial(trial, datetime.now(UTC), code=self._code, metrics=self.costs.find(trial))
        self.running[trial.id] = run
        self._end(run, state, reason)
        self._release_checkpoints(cell)

    def _next_confirm(self) -> Trial | None:
        """Return the next confirm trial: low seed numbers of all cells first, so that an unfinished study has pairs."""
        decide_points(self.study, self.cells.values())
        ready = [cell for cell in self.cells.values() if self._is_ready(cell)]
        left = [(pairs[0], cell) for cell in ready if (pairs := cell.confirms_left)]
        if not left:
            return None
        (number, point), progress = min(left, key=lambda pair: pair[0])
        progress.confirmed[number, point] = None
        assert progress.points is not None
        params = progress.points[point]
        return make_confirm_trial(self.study, progress.cell, number, params, self._fingerprints, point)

    def _is_ready(self, cell: CellProgress) -> bool:
        return not (self.problem or (cell.needs_teacher and self.preparations))

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
        return self.cells[run.trial.cell].report_epoch(run) or skipped

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
            self.preparations = [step for step in self.preparations if make_preparation_trial(step).id != trial.id]
        else:
            self.problem = f"{trial.arm} failed: {reason}"

    def _release_checkpoints(self, cell: CellProgress) -> None:
        """Note which checkpoints no link needs any more; not during a replay, before all links are known."""
        now = time.monotonic()
        self.obsolete += (
            ObsoleteCheckpoint(trial_id, state is TrialState.FAILED, now)
            for trial_id, state in cell.release_checkpoints()
        )

    def _reconcile_confirms(self) -> None:
        """Decide what cells confirm whose search is done, and which earlier confirm trials count for it."""
        decide_points(self.study, self.cells.values())
        for cell in self.cells.values():
            if cell.points is not None:
                self.resumable += reconcile_confirms(self.study, cell, self.writer)

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

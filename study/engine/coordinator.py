"""What runs next: prepare, then per cell search, then confirm. Bookkeeping only; study/execution/tune.py does the
running.

Everything a Flow knows it knows from rows, so a new Flow over an old study's records is that study, resumed: ended
trials are told to the search again, rungs are rebuilt, and trials that were running come first. Cells do not wait
for each other: one goes to confirm as soon as its own search is done.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import optuna

from study.engine.cell import CellProgress
from study.engine.usage import exhausted_cap
from study.errors import InputError
from study.identity import describe
from study.records.rows import RunningTrial, epoch_row, trial_row
from study.records.segments import Records
from study.space.domains import Value, resolve_params
from study.space.params import Params
from study.study import Study
from study.task import Preparation
from study.trackers.base import Tracker
from study.trial import EpochResult, Phase, Trial, TrialState

FLUSH_SECONDS = 1.0
"""What a kill may cost: rows are written at least so often, and whenever nothing else is to be done."""


@dataclass(frozen=True)
class Earlier:
    """A confirm trial of an earlier run: whether it still counts is known when its cell's search is done."""

    run: RunningTrial
    state: TrialState
    reason: str
    at: datetime | None
    """When it ended, or was last heard of."""


class Coordinator:
    """One study in progress. The executor asks `next`, and tells `report` or `fail`.

    `preparations` is what must still be made before trials that need the teacher can start; `fingerprints` identify
    the inputs and enter every trial's configuration; `warm` are a warm start's points by cell
    (study/engine/warm_start.py).
    """

    def __init__(
        self,
        study: Study,
        records: Records,
        journal: optuna.storages.BaseStorage,
        preparations: list[Preparation],
        fingerprints: Mapping[str, str],
        warm: Mapping[str, Sequence[Params]] | None = None,
    ):
        self.study, self.records = study, records
        self.preparations = list(preparations)
        self.problem = ""
        """Why the study cannot go on: a preparation that failed, a cell of which every trial fails."""
        warm = warm or {}
        self.cells = {cell.name: CellProgress(study, cell, journal, warm.get(cell.name, ())) for cell in study.cells}
        self.running: dict[str, RunningTrial] = {}
        self.resumable: list[RunningTrial] = []
        self.earlier: dict[str, list[Earlier]] = {name: [] for name in self.cells}
        """Confirm trials of earlier runs by cell, until its search is done."""
        self.resources: Mapping[str, Any] = {}
        """What a trial of this run gets, for its row."""
        self.code = ""
        """The digest of the code that runs, for the rows of what is trained now."""
        self.wall_seconds_before = self.gpu_seconds = 0.0
        """Spent by earlier runs; spent by all."""
        self.flushed = time.monotonic()
        """When rows were last written."""
        self.trackers: Sequence[Tracker] = ()
        """Hear of epochs and ends."""
        self.flush_seconds = FLUSH_SECONDS
        self.epoch_seconds: deque[float] = deque(maxlen=200)
        """Of the epochs last trained, for an estimate of what is left."""
        self._fingerprints = fingerprints
        self._started = time.monotonic()

    # -- what the executor asks and tells --------------------------------------------------------------------------

    def next(self) -> RunningTrial | None:
        """The trial to start now. None if there is none: before something running ends, or for good."""
        if self.over_budget:
            return None
        run = self._resumed() or self._as_run(self._preparation() or self._proposal() or self._confirmation())
        if run is not None:
            run.resources = self.resources
            run.continue_with(self.code)
            self.running[run.trial.id] = run
            self.record(run, TrialState.RUNNING, "")
        self.flush_if_due()
        return run

    def report(self, trial_id: str, row: EpochResult, worker: str) -> bool:
        """Record an epoch; True if the trial has ended by it, complete or stopped by the rule."""
        run = self.running[trial_id]
        trial = run.trial
        if row["epoch"] <= run.epochs_done:
            return False  # a restarted worker tells again what it had told before
        if worker != run.worker:  # who looks on wants to know where it runs
            run.worker = worker
            self.record(run, TrialState.RUNNING, "")
        self._record_epoch(run, row, worker)
        fault, reason = self.fault(run), None
        if trial.phase == "search" and not fault:
            reason = self.cells[trial.cell].report_epoch(run)
        if fault:
            self.end(run, TrialState.FAILED, fault)
        elif row["epoch"] == trial.epochs:
            self.end(run, TrialState.COMPLETE, "")
        elif reason:
            self.end(run, TrialState.PRUNED, reason)
        self.flush_if_due()
        return trial_id not in self.running

    def fault(self, run: RunningTrial) -> str:
        """What is wrong with the scores of a trial's last epoch; empty if they can be used."""
        names = {"search": tuple(self.study.objective_directions), "confirm": (self.study.test_metric,)}.get(
            run.trial.phase, ()
        )
        if run.trial.phase == "confirm" and run.epochs_done < run.trial.epochs:
            return ""
        scores = {name: run.metrics.get(name, math.nan) for name in names}
        unusable = [f"{name} is {score}" for name, score in scores.items() if not math.isfinite(score)]
        return f"{', '.join(unusable)} in epoch {run.epochs_done}" if unusable else ""

    def fail(self, trial_id: str, reason: str, worker: str = "") -> None:
        """The trial itself went wrong; the study goes on without it."""
        run = self.running[trial_id]
        run.worker = worker or run.worker
        self.end(run, TrialState.FAILED, reason)
        self.flush_if_due()

    def requeue(self, trial_id: str) -> None:
        """Start a trial anew that is no longer under way, from its checkpoint."""
        self.resumable.append(self.running.pop(trial_id))

    def end(self, run: RunningTrial, state: TrialState, reason: str, at: datetime | None = None) -> None:
        """Close a trial: for its cell, for the search, and on record; `at` if it had ended before now."""
        trial = run.trial
        del self.running[trial.id]
        self.record(run, state, reason, at)
        if trial.phase == "prepare":
            self._preparation_ended(trial, state, reason)
            return
        cell = self.cells[trial.cell]
        cell.end_trial(run, state, reason)
        self.problem = self.problem or cell.fail_fast_reason
        self.reconcile_confirms(cell)

    def interrupt(self, reason: str) -> None:
        """The study stops here; what runs is resumed by the next run."""
        for run in self.running.values():
            self.record(run, TrialState.INTERRUPTED, reason)
        self.resumable += self.running.values()
        self.running = {}
        self.flush()

    def flush(self) -> None:
        self.records.flush()
        self.flushed = time.monotonic()

    def flush_if_due(self) -> None:
        if time.monotonic() - self.flushed >= self.flush_seconds:
            self.flush()

    @property
    def over_budget(self) -> str:
        """Which cap of the budget is reached; empty while the study may go on."""
        return exhausted_cap(self.study.budget, self.wall_seconds_before + self.wall_seconds, self.gpu_seconds)

    @property
    def wall_seconds(self) -> float:
        """How long this run has been going on."""
        return time.monotonic() - self._started

    @property
    def done(self) -> bool:
        """Every cell is confirmed with every seed: there is nothing left to train."""
        return all(cell.done for cell in self.cells.values())

    @property
    def problems(self) -> list[str]:
        """Why cells cannot be done, once nothing is left to run."""
        if self.problem:
            return [self.problem]
        open_cells = [(name, cell) for name, cell in self.cells.items() if not cell.done]
        return [f"{name}: {cell.problem or 'not complete'}" for name, cell in open_cells]

    # -- what could start, most urgent first -----------------------------------------------------------------------

    def _resumed(self) -> RunningTrial | None:
        for index, run in enumerate(self.resumable):
            trial = run.trial
            if trial.phase == "prepare" or self._ready(self.cells[trial.cell]):
                return self.resumable.pop(index)
        return None

    def _preparation(self) -> Trial | None:
        """The next step of the earliest stage that is not done; steps of one stage run side by side."""
        if not self.preparations or self.problem:
            return None
        stage = min(step.stage for step in self.preparations)
        started = {run.trial.id for run in (*self.running.values(), *self.resumable)}
        steps = (preparation_trial(step) for step in self.preparations if step.stage == stage)
        return next((trial for trial in steps if trial.id not in started), None)

    def _proposal(self) -> Trial | None:
        """The next search trial; searches lead, since their cell's confirm waits for them, the longest one first."""
        while open_cells := [cell for cell in self.cells.values() if cell.proposals_left and self._ready(cell)]:
            cell = max(open_cells, key=lambda cell: cell.proposals_left)
            number, params = cell.propose()
            try:
                return self._trial(cell, "search", number, params)
            except InputError as error:  # settings that are fine one by one and not together
                self._refuse(cell, number, params, str(error))
        return None

    def _refuse(self, cell: CellProgress, number: int, params: Mapping[str, Value], reason: str) -> None:
        student, arm, seed = cell.cell.student.name, cell.cell.arm.name, self.study.derive_trial_seed("search", number)
        trial = Trial("search", student, arm, number, seed, self.study.budget.epochs, params, {"refused": reason})
        self.running[trial.id] = run = RunningTrial(trial, datetime.now(UTC), code=self.code)
        self.end(run, TrialState.FAILED, reason)

    def _confirmation(self) -> Trial | None:
        """The next confirm trial: low seed numbers of all cells first, so that an unfinished study has pairs."""
        left = [(cell.confirm_left[0], cell) for cell in self.cells.values() if cell.confirm_left and self._ready(cell)]
        if not left:
            return None
        number, cell = min(left, key=lambda pair: pair[0])
        cell.confirmed[number] = None
        assert cell.chosen is not None
        return self._trial(cell, "confirm", number, cell.chosen)

    def _ready(self, cell: CellProgress) -> bool:
        return not (self.problem or (cell.needs_teacher and self.preparations))

    def _trial(self, cell: CellProgress, phase: Phase, number: int, params: Mapping[str, Value]) -> Trial:
        study, arm = self.study, cell.cell.arm
        config = {
            "task": describe(study.task),
            "student": describe(cell.cell.student),
            "loss": describe(resolve_params(arm.loss, params)),
            "train_on": study.confirm_on if phase == "confirm" else "train",
            "inputs": dict(self._fingerprints),
        } | ({"workers": study.workers_per_trial} if study.workers_per_trial > 1 else {})
        seed = study.derive_trial_seed(phase, number)
        return Trial(phase, cell.cell.student.name, arm.name, number, seed, study.budget.epochs, params, config)

    # -- rows ------------------------------------------------------------------------------------------------------

    def reconcile_confirms(self, cell: CellProgress) -> None:
        """Once a cell's search is done: its earlier confirm trials count if they had the configuration now chosen."""
        if not cell.search_done:
            return
        for earlier in self.earlier[cell.name]:
            run, trial = earlier.run, earlier.run.trial
            if cell.chosen is None or dict(trial.params) != dict(cell.chosen):
                if earlier.state is not TrialState.SUPERSEDED:
                    self.record(run, TrialState.SUPERSEDED, "its cell's search went on and chose another", earlier.at)
            elif earlier.state in (TrialState.COMPLETE, TrialState.FAILED):
                cell.confirmed[trial.number] = earlier.state
                cell.note_failure(run, earlier.state, earlier.reason)
            elif run.epochs_done == trial.epochs:  # superseded, and chosen again
                fault = self.fault(run)
                cell.confirmed[trial.number] = TrialState.FAILED if fault else TrialState.COMPLETE
                self.record(run, TrialState.FAILED if fault else TrialState.COMPLETE, fault, earlier.at)
            else:
                cell.confirmed[trial.number] = None
                self.resumable.append(run)
        self.earlier[cell.name] = []

    def _as_run(self, trial: Trial | None) -> RunningTrial | None:
        return None if trial is None else RunningTrial(trial, datetime.now(UTC))

    def _preparation_ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        if state is TrialState.COMPLETE:
            self.preparations = [step for step in self.preparations if preparation_trial(step).id != trial.id]
        else:
            self.problem = f"{trial.arm} failed: {reason}"

    def _record_epoch(self, run: RunningTrial, row: EpochResult, worker: str) -> None:
        self.records.epochs.append(epoch_row(run.trial, row))  # first: no more epochs count than have rows
        run.add(row, worker)
        self.gpu_seconds += row["seconds"] * float(run.resources.get("gpus") or 0.0)
        if run.trial.phase != "prepare":
            self.cells[run.trial.cell].got_going = True
            self.epoch_seconds.append(row["seconds"])
        for tracker in self.trackers:
            tracker.log_epoch(run.trial, row)

    def record(self, run: RunningTrial, state: TrialState, reason: str, at: datetime | None = None) -> None:
        """Write down where a trial stands; `at` if it has stood there before now."""
        self.records.trials.append(trial_row(run, state, reason, at))
        if state.is_finished:
            for tracker in self.trackers:
                tracker.finish_trial(run.trial, state, reason)


def preparation_trial(step: Preparation) -> Trial:
    """A preparation as the trial that does it."""
    return Trial("prepare", "", step.name, 0, 0, step.epochs, {}, describe(step.config))

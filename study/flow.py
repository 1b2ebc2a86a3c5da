"""What runs next: prepare, then per cell search, then confirm. Bookkeeping only; study/executor.py does the running.

Everything a Flow knows it knows from rows, so a new Flow over an old study's records is that study, resumed: ended
trials are told to the search again, rungs are rebuilt, and trials that were running come first. Cells do not wait
for each other: one goes to confirm as soon as its own search is done.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import optuna

from study.cells import CellState
from study.describe import describe
from study.errors import InputError
from study.records import Records
from study.space import Value, resolve_params
from study.study import Study
from study.trial import Phase, Preparation, Row, Trial, TrialState

FLUSH_SECONDS = 2.0


@dataclass
class Run:
    """A trial under way: what its next row adds to."""

    trial: Trial
    started: datetime
    epochs_done: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""


class Flow:
    """One study in progress. The executor asks `next`, and tells `report` or `fail`.

    `preparations` is what must still be made before trials that need the teacher can start; `fingerprints` identify
    the inputs and enter every trial's configuration.
    """

    def __init__(
        self,
        study: Study,
        records: Records,
        journal: optuna.storages.BaseStorage,
        preparations: list[Preparation],
        fingerprints: Mapping[str, str],
    ):
        self.study, self.records = study, records
        self.preparations = list(preparations)
        self.problem = ""
        """Why the study cannot go on: a preparation that failed."""
        self.cells = {cell.name: CellState(study, cell, journal) for cell in study.cells}
        self.running: dict[str, Run] = {}
        self.resumable: list[Run] = []
        self.resources: Mapping[str, Any] = {}
        """What a trial of this run gets, for its row."""
        self._fingerprints = fingerprints
        self.epoch_seconds: deque[float] = deque(maxlen=200)
        """Of the epochs last trained, for an estimate of what is left."""
        self._flushed = time.monotonic()

    # -- what the executor asks and tells --------------------------------------------------------------------------

    def next(self) -> Run | None:
        """The trial to start now. None if there is none: before something running ends, or for good."""
        run = self._resumed() or self._as_run(self._preparation() or self._proposal() or self._confirmation())
        if run is not None:
            self.running[run.trial.id] = run
            self._record_trial(run, TrialState.RUNNING, "")
            self.flush()
        return run

    def report(self, trial_id: str, row: Row, worker: str) -> bool:
        """Record an epoch; True if the trial has ended by it, complete or stopped by the rule."""
        run = self.running[trial_id]
        trial = run.trial
        if row["epoch"] <= run.epochs_done:
            return False  # a restarted worker tells again what it had told before
        self._record_epoch(run, row, worker)
        fault, reason = self.fault(run), None
        if trial.phase == "search" and not fault:
            reason = self.cells[trial.cell].saw_epoch(trial.number, row["epoch"], row["metrics"][self.study.metric])
        if fault:
            self.end(run, TrialState.FAILED, fault)
        elif row["epoch"] == trial.epochs:
            self.end(run, TrialState.COMPLETE, "")
        elif reason:
            self.end(run, TrialState.PRUNED, reason)
        elif time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        return trial_id not in self.running

    def fault(self, run: Run) -> str:
        """What is wrong with the scores of a trial's last epoch; empty if they can be used."""
        name = {"search": self.study.metric, "confirm": self.study.test_metric}.get(run.trial.phase)
        if name is None or (run.trial.phase == "confirm" and run.epochs_done < run.trial.epochs):
            return ""
        score = run.metrics.get(name, math.nan)
        return "" if math.isfinite(score) else f"{name} is {score} in epoch {run.epochs_done}"

    def fail(self, trial_id: str, reason: str, worker: str = "") -> None:
        """The trial itself went wrong; the study goes on without it."""
        run = self.running[trial_id]
        run.worker = worker or run.worker
        self.end(run, TrialState.FAILED, reason)

    def end(self, run: Run, state: TrialState, reason: str) -> None:
        """Close a trial: for its cell, for the search, and on record."""
        trial = run.trial
        del self.running[trial.id]
        if trial.phase == "prepare":
            self._preparation_ended(trial, state, reason)
        else:
            score = run.metrics.get(self.study.metric) if state is TrialState.COMPLETE else None
            self.cells[trial.cell].ended(trial, state, reason, score, run.epochs_done)
        self._record_trial(run, state, reason)
        self.flush()

    def interrupt(self, reason: str) -> None:
        """The study stops here; what runs is resumed by the next run."""
        for run in self.running.values():
            self._record_trial(run, TrialState.INTERRUPTED, reason)
        self.resumable += self.running.values()
        self.running = {}
        self.flush()

    def flush(self) -> None:
        self.records.flush()
        self._flushed = time.monotonic()

    @property
    def done(self) -> bool:
        """Every cell is confirmed with every seed: there is nothing left to train."""
        return all(cell.done for cell in self.cells.values())

    @property
    def problems(self) -> list[str]:
        """Why cells are not done, once nothing is left to run."""
        if self.problem:
            return [self.problem]
        open_cells = [(name, cell) for name, cell in self.cells.items() if not cell.done]
        return [f"{name}: {cell.problem or 'not complete'}" for name, cell in open_cells]

    # -- what could start, most urgent first -----------------------------------------------------------------------

    def _resumed(self) -> Run | None:
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
        started = {run.trial.arm for run in (*self.running.values(), *self.resumable)}
        waiting = [step for step in self.preparations if step.stage == stage and step.name not in started]
        return preparation_trial(waiting[0]) if waiting else None

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

    def _refuse(self, cell: CellState, number: int, params: Mapping[str, Value], reason: str) -> None:
        student, arm, seed = cell.cell.student.name, cell.cell.arm.name, self.study.trial_seed("search", number)
        trial = Trial("search", student, arm, number, seed, self.study.budget.epochs, params, {"refused": reason})
        self.running[trial.id] = run = Run(trial, datetime.now(UTC))
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

    def _ready(self, cell: CellState) -> bool:
        return not (cell.needs_teacher and self.preparations)

    def _trial(self, cell: CellState, phase: Phase, number: int, params: Mapping[str, Value]) -> Trial:
        study, arm = self.study, cell.cell.arm
        config = {
            "task": describe(study.task),
            "student": describe(cell.cell.student),
            "loss": describe(resolve_params(arm.loss, params)),
            "train_on": study.confirm_on if phase == "confirm" else "train",
            "inputs": dict(self._fingerprints),
        }
        seed = study.trial_seed(phase, number)
        return Trial(phase, cell.cell.student.name, arm.name, number, seed, study.budget.epochs, params, config)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _as_run(self, trial: Trial | None) -> Run | None:
        return None if trial is None else Run(trial, datetime.now(UTC))

    def _preparation_ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        if state is TrialState.COMPLETE:
            self.preparations = [step for step in self.preparations if step.name != trial.arm]
        else:
            self.problem = f"{trial.arm} failed: {reason}"

    def _record_epoch(self, run: Run, row: Row, worker: str) -> None:
        run.epochs_done = row["epoch"]
        run.seconds += row["seconds"]
        run.metrics, run.worker = row["metrics"], worker
        if run.trial.phase != "prepare":
            self.epoch_seconds.append(row["seconds"])
        self.records.epochs.append(
            {
                "trial_id": run.trial.id,
                "cell": run.trial.cell,
                "phase": run.trial.phase,
                "epoch": row["epoch"],
                "seconds": row["seconds"],
                "recorded": datetime.now(UTC),
                "schedules": json.dumps(row["schedules"]),
            }
            | row["metrics"]
        )

    def _record_trial(self, run: Run, state: TrialState, reason: str) -> None:
        trial = run.trial
        self.records.trials.append(
            {
                "trial_id": trial.id,
                "cell": trial.cell,
                "student": trial.student,
                "arm": trial.arm,
                "phase": trial.phase,
                "number": trial.number,
                "seed": trial.seed,
                "state": str(state),
                "reason": reason,
                "epochs": trial.epochs,
                "epochs_done": run.epochs_done,
                "params": json.dumps(dict(trial.params)),
                "config": json.dumps(trial.config, ensure_ascii=False),
                "seconds": run.seconds,
                "started": run.started,
                "ended": datetime.now(UTC) if state is not TrialState.RUNNING else None,
                "worker": run.worker,
            }
            | dict(self.resources)
            | dict(run.metrics)
        )


def preparation_trial(step: Preparation) -> Trial:
    """A preparation as the trial that does it."""
    return Trial("prepare", "", step.name, 0, 0, step.epochs, {}, describe(step.config))

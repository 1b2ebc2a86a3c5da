"""Adapter between Ray Tune and the coordinator: maps trial ids, decodes worker reports, caps concurrency, retries.

Imports nothing of Ray; study/execution/tune.py calls it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from study.engine.coordinator import Coordinator
from study.execution.retries import RetryPolicy, WorkerFailure
from study.execution.worker import StepReport
from study.execution.worker_context import WorkerContext
from study.records.parquet_table import RecordsError
from study.records.rows import RunningTrial

TICK_SECONDS = 0.25

MAX_TRIALS_SECONDS = 10.0
"""Interval at which the cluster is asked whether it has grown or shrunk."""

WAITING_SECONDS = 60.0
"""Time without any placed trial after which the user is informed."""

StopCheck = Callable[[], str]
"""Called every TICK_SECONDS: updates the display and returns why the study must stop, or an empty string."""


class StopTuning(BaseException):
    """Raised to leave Tune's loop at once. Not an Exception, because Tune would wrap it in its own."""


class TuneBridge:
    """Hands the coordinator's trials to Tune and Tune's reports to the coordinator.

    A trial that is restarted after Tune gave it up has a new Tune id, and the same id in the study.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        context: WorkerContext,
        check_stop: StopCheck,
        notify: Callable[[str], None],
        max_trials: Callable[[], int],
    ):
        self.coordinator, self._context = coordinator, context
        self._check_stop, self._notify, self._max_trials = check_stop, notify, max_trials
        self._trial_ids: dict[str, str] = {}
        """The study's trial id by Tune's."""
        self._retries = RetryPolicy()
        self._limit = max_trials()
        """Trials under way at most; those without a place wait inside Ray, where an autoscaler sees them."""
        self._placed: set[str] = set()
        """Tune ids of trials that have a worker."""
        now = time.monotonic()
        self._last_tick, self._limit_checked, self._last_placed = 0.0, now, now

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores a pickled copy of its searcher, which is never loaded

    def tick(self) -> None:
        """Write due rows, delete obsolete checkpoints, follow the cluster's size and check for a stop.

        Raises StopTuning if the study must stop.
        """
        now = time.monotonic()
        if now - self._last_tick < TICK_SECONDS:
            return
        self._last_tick = now
        with _leaving_tune():
            self.coordinator.writer.flush_if_due()
            self.delete_checkpoints()
            if now - self._limit_checked >= MAX_TRIALS_SECONDS:
                self._limit_checked, self._limit = now, self._max_trials()
            self._report_waiting(now)
            if reason := self._check_stop():
                raise StopTuning(reason)

    def _report_waiting(self, now: float) -> None:
        """Notify the user, once until a trial is placed again, that the cluster has no place for any trial."""
        waiting = len(self.coordinator.running)
        if self._placed or not waiting:
            self._last_placed = now
        elif now - self._last_placed >= WAITING_SECONDS:
            self._notify(f"no worker for any of the trials yet, {waiting} waiting: no node is free")
            self._last_placed = math.inf

    def mark_placed(self, tune_id: str) -> None:
        """Note that a trial has a worker."""
        self._placed.add(tune_id)

    def delete_checkpoints(self) -> None:
        """Delete the checkpoints that are not needed any more."""
        for one in self.coordinator.writer.pop_obsolete():
            self._context.discard_checkpoint(one.trial_id, keep_traceback=one.failed)

    def next_trial(self, tune_id: str) -> RunningTrial | None:
        """Return the next trial to start; None if there is none, or no room for it."""
        if len(self.coordinator.running) >= self._limit:
            return None
        with _leaving_tune():
            run = self.coordinator.next_trial()
            if run is None:
                return None
            self._trial_ids[tune_id] = run.trial.id
            if run.start_over:
                self._context.reset_checkpoint(run.trial.id)
        return run

    def handle_report(self, tune_id: str, message: str) -> tuple[bool, bool]:
        """Pass a worker's report to the coordinator; return whether the trial has ended, and whether it got further.

        A trial that got further has all its retries again.
        """
        report = StepReport(**json.loads(message))
        trial_id = self._trial_ids[tune_id]
        run = self.coordinator.running[trial_id]
        epochs_before = run.epochs_done
        with _leaving_tune():
            for note in report.notes:
                self._notify(f"{run.trial.cell}, {run.trial.phase} {run.trial.number}: {note}")
            ended = any(self.coordinator.report(trial_id, row, report.worker) for row in report.rows)
            if report.halt:
                raise RecordsError(report.halt)
            if report.failure and not ended:
                self.coordinator.fail(trial_id, report.failure, report.worker)
            elif report.lost and not ended:
                self._retries.record(trial_id, WorkerFailure(**report.lost))  # of a worker that Ray Train replaces
                ended = self._fail_if_exhausted(trial_id)
        progressed = run.epochs_done > epochs_before
        if progressed:
            self._retries.reset(trial_id)
        if ended := ended or bool(report.failure):
            self._placed.discard(tune_id)
        return ended, progressed

    def record_failure(self, tune_id: str, failure: WorkerFailure) -> None:
        """Count a worker that died or could not start."""
        self._placed.discard(tune_id)
        self._retries.record(self._trial_ids[tune_id], failure)

    def retry_or_fail(self, tune_id: str) -> None:
        """Requeue a trial that Tune gave up, or fail it if its retries are used up.

        Tune gives a trial up after a single failure if its worker dies just as it turns from one trial to the next.
        """
        trial_id = self._trial_ids[tune_id]
        self._retries.record_give_up(trial_id)
        with _leaving_tune():
            if not self._fail_if_exhausted(trial_id):
                self.coordinator.requeue(trial_id)

    def _fail_if_exhausted(self, trial_id: str) -> bool:
        """Fail a trial whose retries are used up; return whether they are."""
        reason = self._retries.failure_reason(trial_id)
        if reason:
            self._context.write_traceback(trial_id, self._retries.last_failure(trial_id).text)
            self.coordinator.fail(trial_id, reason)
        return bool(reason)


@contextmanager
def _leaving_tune() -> Iterator[None]:
    """Carry our own exceptions out of Tune's loop unchanged, as the cause of StopTuning."""
    try:
        yield
    except Exception as error:
        raise StopTuning from error

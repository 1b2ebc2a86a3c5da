"""Between Tune's trials and the flow's: who is who, what a message means, how many there may be, who is lost.

Knows nothing of Ray; study/execution/tune.py is what calls it.
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
from study.execution.worker import StepReport, WorkerContext
from study.records.rows import RunningTrial
from study.records.segments import RecordsError

TICK_SECONDS = 0.25

ROOM_SECONDS = 10.0
"""How often a cluster is asked whether it has grown."""

WAITING_SECONDS = 60.0
"""When the user is told that no trial is placed."""

Watch = Callable[[], str]
"""Looks after display and caps, every TICK_SECONDS; says why the study is to stop here, or nothing."""


class StopTuning(BaseException):
    """Out of Tune's loop, now. Not an Exception: Tune would wrap it in its own."""


class TuneBridge:
    """Trials go out by it, and what becomes of them comes in. Tune's ids are of one start of a trial."""

    def __init__(
        self,
        flow: Coordinator,
        workplace: WorkerContext,
        watch: Watch,
        say: Callable[[str], None],
        room: Callable[[], int],
    ):
        self.flow, self._workplace, self._watch, self._say, self._room = flow, workplace, watch, say, room
        self._ids: dict[str, str] = {}
        self._deaths = RetryPolicy()
        self._limit = room()
        """How many trials may be under way; those that find no place wait in Ray, where an autoscaler sees them."""
        self._placed: set[str] = set()
        """Trials that have a worker, by Tune's id."""
        self._ticked, self._asked, self._busy = 0.0, time.monotonic(), time.monotonic()
        self._over: list[tuple[str, float]] = []
        """Trials whose checkpoint is not needed once their end is on disk, and when they ended."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a pickled copy of its searcher, which nobody ever opens

    def tick(self) -> None:
        """Write what is due, and leave if it is time to."""
        if time.monotonic() - self._ticked < TICK_SECONDS:
            return
        self._ticked = time.monotonic()
        with _out_of_tune():
            self.flow.flush_if_due()
            self.forget()
            self._look_around()
            if reason := self._watch():
                raise StopTuning(reason)

    def _look_around(self) -> None:
        """Follow the cluster as it grows and shrinks; say so if it has no place for any trial."""
        now = time.monotonic()
        if now - self._asked >= ROOM_SECONDS:
            self._asked, self._limit = now, self._room()
        if self._placed or not self.flow.running:
            self._busy = now
        elif now - self._busy >= WAITING_SECONDS:
            self._say(f"no worker for any of the trials yet, {len(self.flow.running)} waiting: no node is free")
            self._busy = math.inf  # said once, until one is placed again

    def placed(self, tune_id: str) -> None:
        """A trial has a worker."""
        self._placed.add(tune_id)

    def forget(self) -> None:
        """Remove the checkpoints of trials whose end is on disk: until then a kill would cost the whole trial."""
        while self._over and self._over[0][1] < self.flow.flushed:
            self._workplace.forget(self._over.pop(0)[0])

    def open(self, tune_id: str) -> RunningTrial | None:
        """The next trial to start, if there is one and room for it."""
        if len(self.flow.running) >= self._limit:
            return None
        with _out_of_tune():
            run = self.flow.next()
        if run is None:
            return None
        self._ids[tune_id] = run.trial.id
        if run.start_over:
            with _out_of_tune():
                self._workplace.clear(run.trial.id)
        return run

    def hear(self, tune_id: str, text: str) -> tuple[bool, bool]:
        """Pass a worker's message to the flow; whether the trial has ended, and whether it got further by it."""
        told = StepReport(**json.loads(text))
        trial_id = self._ids[tune_id]
        run = self.flow.running[trial_id]
        before = run.epochs_done
        with _out_of_tune():
            for note in told.notes:
                self._say(f"{run.trial.cell}, {run.trial.phase} {run.trial.number}: {note}")
            ended = any(self.flow.report(trial_id, row, told.worker) for row in told.rows)
            if told.halt:
                raise RecordsError(told.halt)
            if told.failure and not ended:
                self.flow.fail(trial_id, told.failure, told.worker)
            elif ended and run.trial.phase != "confirm":
                self._over.append((trial_id, time.monotonic()))  # only a confirmed student's weights are worth keeping
        if over := ended or bool(told.failure):
            self._placed.discard(tune_id)
        return over, run.epochs_done > before

    def forgive(self, tune_id: str) -> None:
        """A trial got further: what it lost before does not count."""
        self._deaths.reset(self._ids[tune_id])

    def died(self, tune_id: str, death: WorkerFailure) -> None:
        """A worker died, or could not start."""
        self._placed.discard(tune_id)
        self._deaths.add(self._ids[tune_id], death)

    def lost(self, tune_id: str) -> None:
        """Tune gave a trial up: it has failed if it lost more than is forgiven, and is started again if not.

        Where a worker dies just as it turns to its next trial, Tune gives that one up after a single death.
        """
        trial_id = self._ids[tune_id]
        self._deaths.given_up(trial_id)
        reason = self._deaths.failure(trial_id)
        if not reason:
            self.flow.requeue(trial_id)
            return
        with _out_of_tune():
            self._workplace.explain(trial_id, self._deaths.text(trial_id))
            self.flow.fail(trial_id, reason)


@contextmanager
def _out_of_tune() -> Iterator[None]:
    """Let an error of ours leave Tune's loop as it is."""
    try:
        yield
    except Exception as error:
        raise StopTuning from error

"""Rows of trials and epochs as a study progresses, for the records and the trackers; checkpoints that rows replace."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from study.records.parquet_table import Records
from study.records.rows import RunningTrial, to_epoch_row, to_trial_row
from study.trackers.base import Tracker
from study.trial import EpochResult, TrialState

FLUSH_SECONDS = 1.0
"""Interval at which rows are written: a hard kill loses at most this much of the records."""


@dataclass(frozen=True)
class ObsoleteCheckpoint:
    """A checkpoint that is not needed once the rows of `since` are on disk; earlier, a kill would cost the trial."""

    trial_id: str
    failed: bool
    """The trial failed: its traceback stays."""
    since: float
    """By time.monotonic."""


class RecordWriter:
    """Adds rows to the records, which are written at least every `flush_seconds`, and calls the trackers.

    With infinite `flush_seconds` nothing is written, as by a forecast.
    """

    def __init__(self, records: Records, trackers: Sequence[Tracker] = (), flush_seconds: float = FLUSH_SECONDS):
        self.records, self.flush_seconds = records, flush_seconds
        self.last_flush = time.monotonic()
        self.trackers = trackers
        self._obsolete: deque[ObsoleteCheckpoint] = deque()

    def add_epoch(self, run: RunningTrial, row: EpochResult, worker: str) -> None:
        self.records.epochs.append(to_epoch_row(run.trial, row))  # first: an epoch counts only once it has a row
        run.add_epoch(row, worker)
        for tracker in self.trackers:
            tracker.log_epoch(run.trial, row)

    def add_state(self, run: RunningTrial, state: TrialState, reason: str, at: datetime | None = None) -> None:
        """Add a row with a trial's state; `at` is its time if the trial reached it before now."""
        self.records.add_trial(to_trial_row(run, state, reason, at), run.trial.params)
        if state.is_finished:
            for tracker in self.trackers:
                tracker.finish_trial(run.trial, state, reason)

    def flush(self) -> None:
        if math.isinf(self.flush_seconds):
            return
        self.records.flush()
        self.last_flush = time.monotonic()

    def flush_if_due(self) -> None:
        if time.monotonic() - self.last_flush >= self.flush_seconds:
            self.flush()

    def mark_obsolete(self, trial_id: str, failed: bool = False) -> None:
        """Note that a trial's checkpoint is not needed once the rows added so far are on disk."""
        self._obsolete.append(ObsoleteCheckpoint(trial_id, failed, time.monotonic()))

    def pop_obsolete(self) -> Iterator[ObsoleteCheckpoint]:
        """Yield the checkpoints that can be deleted now, each once."""
        while self._obsolete and self._obsolete[0].since < self.last_flush:
            yield self._obsolete.popleft()

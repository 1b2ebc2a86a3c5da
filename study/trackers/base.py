"""What else hears of a study while it runs, by option: the dashboards of dashboards.py, each in a thread of its own.

By-products, written by the driver and never read: the rows in parquet are the study's only state, so a tracker may
fall behind, fail or be deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from study.errors import InputError
from study.trial import EpochResult, Trial, TrialState

TRACKERS = ("tensorboard", "mlflow", "wandb")
CLOSE_SECONDS = 60.0
"""The trackers may take so long, side by side, at the study's end to write what they still have."""
INTERRUPTED_SECONDS = 3.0
"""The same after Ctrl-C or SIGTERM: who asks a study to stop waits for it to be gone."""

Say = Callable[[str], None]


class Tracker(Protocol):
    """What hears of a study while it runs."""

    def epoch(self, trial: Trial, row: EpochResult) -> None:
        """A trial has told an epoch, its next one."""

    def ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        """A trial has ended, maybe before its first epoch."""

    def close(self) -> None:
        """Nothing more comes; trials that have not ended are interrupted."""


@contextmanager
def tracked(names: Sequence[str], folder: Path, question: str, say: Say) -> Iterator[list[Tracker]]:
    """The trackers of these names for the study in `folder`, closed at the end; `say` is told what is not logged.

    Raises InputError if a package or an account is missing.
    """
    trackers = [BackgroundTracker(name, _opened(name, folder, question), say) for name in dict.fromkeys(names)]
    seconds = CLOSE_SECONDS
    try:
        yield list(trackers)
    except KeyboardInterrupt:
        seconds = INTERRUPTED_SECONDS
        raise
    finally:
        for tracker in trackers:
            tracker.close()
        until = time.monotonic() + seconds
        for tracker in trackers:
            tracker.wait(until, seconds)


def _opened(name: str, folder: Path, question: str) -> Tracker:
    from study.trackers.tensorboard import Mlflow, TensorBoard, WandB

    try:
        match name:
            case "tensorboard":
                return TensorBoard(folder)
            case "mlflow":
                return Mlflow(folder, question)
            case _:
                return WandB(folder)
    except ImportError as error:
        raise InputError(f'--log {name}: {error}; install it with: pip install -e ".[{name}]"') from None


class BackgroundTracker:
    """A tracker in a thread of its own: whatever it does, the study neither stops nor waits for it before its end."""

    def __init__(self, name: str, tracker: Tracker, say: Say):
        self._name, self._tracker, self._say = name, tracker, say
        self._on = True
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"log {name}", daemon=True)
        self._thread.start()

    def epoch(self, trial: Trial, row: EpochResult) -> None:
        if self._on:
            self._calls.put(lambda: self._tracker.epoch(trial, row))

    def ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        if self._on:
            self._calls.put(lambda: self._tracker.ended(trial, state, reason))

    def close(self) -> None:
        self._calls.put(self._tracker.close)
        self._calls.put(None)

    def wait(self, until: float, seconds: float) -> None:
        """After `close`: until everything is written, or it is `until`, by the monotonic clock, `seconds` later."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._on = False
            self._say(f"--log {self._name}: not done after {seconds:g} s, the rest of it is not logged")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever another's library raises, the study goes on
                self._switch_off(error)
                return

    def _switch_off(self, error: Exception) -> None:
        first = next(iter(str(error).splitlines()), "")[:160]
        if self._on:
            self._say(f"--log {self._name} is switched off, the study goes on: {type(error).__name__}: {first}")
        self._on = False
        with suppress(Exception):
            self._tracker.close()

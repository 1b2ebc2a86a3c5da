"""The Tracker protocol, and the trackers chosen with --log, each running in its own thread.

What trackers write is never read back: the Parquet rows are a study's only state, so a tracker may lag, fail or be
deleted. They log no weights, no code and no machine statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from study.errors import InputError, format_first_line
from study.trial import EpochResult, Trial, TrialState

TRACKERS = ("tensorboard", "mlflow", "wandb")
CLOSE_SECONDS = 60.0
"""Maximum time, for all trackers together, to finish writing at the end of a study."""
INTERRUPTED_SECONDS = 3.0
"""The same after Ctrl-C or SIGTERM: short, since the user is waiting for the process to end."""


class Tracker(Protocol):
    """The interface of a tracker, called from the study's process."""

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        """Log the next epoch of a trial."""

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        """Log the end of a trial, which may come before its first epoch."""

    def close(self) -> None:
        """Finish writing; trials without an end are interrupted."""


@contextmanager
def open_trackers(
    names: Sequence[str], folder: Path, question: str, print_line: Callable[[str], None]
) -> Iterator[list[Tracker]]:
    """Open the named trackers for the study in `folder`, and close them at the end.

    A tracker that fails or runs out of time prints one line with `print_line`.
    Raises InputError if a package or an account is missing.
    """
    trackers = [
        BackgroundTracker(name, _open_tracker(name, folder, question), print_line) for name in dict.fromkeys(names)
    ]
    seconds = CLOSE_SECONDS
    try:
        yield list(trackers)
    except KeyboardInterrupt:
        seconds = INTERRUPTED_SECONDS
        raise
    finally:
        for tracker in trackers:
            tracker.close()
        deadline = time.monotonic() + seconds
        for tracker in trackers:
            tracker.join(deadline, seconds)


def _open_tracker(name: str, folder: Path, question: str) -> Tracker:
    try:
        match name:
            case "tensorboard":
                from study.trackers.tensorboard import TensorBoard

                return TensorBoard(folder)
            case "mlflow":
                from study.trackers.mlflow import Mlflow

                return Mlflow(folder, question)
            case _:
                from study.trackers.wandb import WandB

                return WandB(folder)
    except ImportError as error:
        raise InputError(f'--log {name}: {error}; install it with: pip install -e ".[{name}]"') from None


class BackgroundTracker:
    """A tracker that runs in its own thread: it neither blocks the study nor ends it by an exception."""

    def __init__(self, name: str, tracker: Tracker, print_line: Callable[[str], None]):
        self._name, self._tracker, self._print_line = name, tracker, print_line
        self._enabled = True
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"log {name}", daemon=True)
        self._thread.start()

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        if self._enabled:
            self._calls.put(lambda: self._tracker.log_epoch(trial, row))

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        if self._enabled:
            self._calls.put(lambda: self._tracker.finish_trial(trial, state, reason))

    def close(self) -> None:
        self._calls.put(self._tracker.close)
        self._calls.put(None)

    def join(self, deadline: float, seconds: float) -> None:
        """Wait after `close` until everything is written, at most to `deadline` of the monotonic clock.

        `seconds` is the time allowed in total, for the message.
        """
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._enabled = False
            self._print_line(f"--log {self._name}: not finished after {seconds:g} s, the rest is not logged")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # any error of a tracker's package: the study continues
                self._disable(error)
                return

    def _disable(self, error: Exception) -> None:
        if self._enabled:
            problem = format_first_line(error)[:200]
            self._print_line(f"--log {self._name} is switched off, the study continues: {problem}")
        self._enabled = False
        with suppress(Exception):
            self._tracker.close()


# -- shared by trackers ------------------------------------------------------------------------------------------------


def flatten_result(row: EpochResult) -> dict[str, float]:
    """Return all numbers of an epoch by name."""
    schedules = {f"schedule/{name}": value for name, value in row["schedules"].items()}
    return {**row["metrics"], **schedules, "seconds": row["seconds"]}


def describe_trial(trial: Trial) -> dict[str, str | int]:
    return {
        "cell": trial.cell,
        "student": trial.student,
        "arm": trial.arm,
        "phase": trial.phase,
        "number": trial.number,
        "seed": str(trial.seed),  # as a number its 63 bits would be rounded to a float
    }


def format_title(trial: Trial) -> str:
    point = f" of point {trial.point}" if trial.point else ""
    return f"{trial.cell} {trial.phase}-{trial.number}{point}"

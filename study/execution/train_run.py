"""One-worker trials in Ray Train's local mode: each is a run of Ray Train whose train function yields its rows.

The train function runs in a thread of the worker's process; `ray.train.get_context()` and `ray.train.report` work in
it. After each row it waits until the next one is requested, because the driver decides after each row whether the trial
continues.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from study.cluster.connection import check_train_version  # isort: skip  (first: it sets what Ray reads when imported)
import ray.train

from study.execution.ray_internals import DataParallelTrainer
from study.trial import EpochResult

T = TypeVar("T")

logging.getLogger("ray.train").setLevel(logging.WARNING)  # Ray Train logs each run and each report

TRAIN_FN = "in _train_fn"
"""End of a line in the stack of the thread that trains; hang reports find the thread by it."""


class TrainThread:
    """The thread in which all trials of this process train, one run after the other.

    A single thread, because torch and cuDNN keep handles and tuned algorithms per thread.
    """

    def __init__(self) -> None:
        self._runs: SimpleQueue[TrainRun] = SimpleQueue()
        # a daemon, so that a process can end while a trial waits for its next request
        threading.Thread(target=self._fit_runs, name="train", daemon=True).start()

    def start(self, name: str, rows: Callable[[], Iterator[EpochResult]]) -> TrainRun:
        """Start a run named `name`; its train function calls `rows`."""
        run = TrainRun(name, rows)
        self._runs.put(run)
        return run

    def _fit_runs(self) -> None:
        while True:
            self._runs.get().fit()


class TrainRun(Iterator[EpochResult]):
    """The rows of one run of Ray Train, in the order in which its train function reports them."""

    def __init__(self, name: str, rows: Callable[[], Iterator[EpochResult]]):
        self._name, self._rows, self._stopped = name, rows, False
        self._requests = threading.Semaphore(0)
        self._reports: SimpleQueue[EpochResult | BaseException] = SimpleQueue()
        self._ended = threading.Event()

    def __next__(self) -> EpochResult:
        """Return the next row, or raise what the train function raised. Raises StopIteration at its end."""
        if self._ended.is_set():
            raise StopIteration
        self._requests.release()
        report = self._reports.get()
        if isinstance(report, BaseException):
            raise report
        return report

    def stop(self) -> None:
        """End the run at its last report, and wait until it has ended."""
        self._stopped = True
        self._requests.release()
        self._ended.wait()

    def fit(self) -> None:
        """Run the train function to its end; called in the thread that trains."""
        try:
            DataParallelTrainer(
                self._train_fn,
                scaling_config=ray.train.ScalingConfig(num_workers=0),
                run_config=ray.train.RunConfig(name=self._name),
            ).fit()
            end: BaseException = StopIteration()
        except SystemExit as error:  # in the actor's own thread it would be Ray's request to end
            end = RuntimeError(f"sys.exit({error.code!r}) was called").with_traceback(error.__traceback__)
        except BaseException as error:
            end = error
        self._ended.set()
        self._reports.put(end)

    def _train_fn(self) -> None:
        self._requests.acquire()
        if self._stopped:
            return
        for row in self._rows():
            ray.train.report({"epoch": row["epoch"], **row["metrics"]})
            self._reports.put(row)
            self._requests.acquire()
            if self._stopped:
                return


def run_in_train_context(function: Callable[[], T]) -> T:
    """Return what `function` returns, called where `ray.train.get_context()` works, as it does in a trial.

    For checks before a study starts, which call a user's losses. Raises InputError if Ray Train V2 is switched off.
    """
    check_train_version()
    results: list[T] = []
    single = ray.train.ScalingConfig(num_workers=0)
    DataParallelTrainer(lambda: results.append(function()), scaling_config=single).fit()
    return results[0]

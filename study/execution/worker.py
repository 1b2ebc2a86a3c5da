"""Worker process: trains one trial after another and keeps torch, its data and its models in memory between them.

`TrialWorker` is the actor of one-worker trials. Tune reuses it, so that a trial costs milliseconds to start, and each
trial is a run of Ray Train inside it (study/execution/train_run.py). The actor knows nothing of torch: a task is an
iterator of rows, and rows travel to the driver as text. An exception inside a trial is reported as that trial's
failure; whatever kills the process is not, and Ray restarts the trial elsewhere.
Trials of several workers run in study/execution/train_slot.py, where each rank is a `Worker` too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from study.engine.student_costs import train_with_costs
from study.errors import find_user_frame
from study.execution.train_run import TRAIN_FN, TrainRun, TrainThread
from study.execution.worker_context import WorkerContext
from study.records.paths import TRACEBACK
from study.storage import worker_sync
from study.storage.s3 import DISK_FULL, StorageError
from study.study import Study
from study.task import TrialNote
from study.trial import EpochResult, Trial, TrialContext

REPORT_SECONDS = 0.1
"""Epochs are reported together until this much time has passed: a report costs the driver milliseconds."""

MESSAGE_CHARACTERS = 500
"""Length of an error's message in the records: some quote a whole tensor. The traceback has all of it."""

HANG_REPORT = ".hung-{rank}.txt"
"""Name of the file, in a trial's checkpoint folder, with the stacks of a process that hung."""


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """Reused Tune actor of one-worker trials; for `config` see `to_config` in study/execution/tune.py."""

    def setup(self, config: dict[str, Any], study: Study, context: WorkerContext, gpus: float) -> None:
        self._worker = Worker(study, context, gpus)
        self._worker.start_trial(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._worker.start_trial(new_config)
        return True

    def step(self) -> dict[str, str]:
        return self._worker.step().to_message()

    def cleanup(self) -> None:
        self._worker.stop_trial()


class Worker:
    """Trains trials in this process, one after another; of a trial of several workers, the share of `rank`."""

    def __init__(self, study: Study, context: WorkerContext, gpus: float, rank: int = 0, workers: int = 1):
        self._study, self._context, self._failed = study, context, False
        self._rank, self._workers, self._gpus = rank, workers, gpus
        self._node_problem = context.find_problem()
        self._last_checkpoint: Path | None = None
        """Checkpoint folder of the previous trial."""
        self._rows: Iterator[EpochResult] | None = None
        self._thread: TrainThread | None = None
        # the ranks of a trial must end each step after the same epoch, whatever their clocks say
        self._report_seconds = REPORT_SECONDS if workers == 1 else 0.0

    def start_trial(self, config: Mapping[str, Any]) -> None:
        """Prepare for a trial."""
        self.stop_trial()
        worker_sync.drop_local_copy(self._context.mirror, self._last_checkpoint)
        self._trial = Trial.from_json(config["trial"])
        self._recorded_epochs = int(config["epochs_done"])
        self._known_costs: dict[str, float] = json.loads(config.get("costs", "{}"))

    def stop_trial(self) -> None:
        """End the current trial's training after the last epoch that it reported."""
        if isinstance(self._rows, TrainRun):
            self._rows.stop()
        self._rows = None

    def step(self) -> StepReport:
        """Train one epoch, or several short ones. Whether the trial has ended is for the driver to decide."""
        if self._failed and self._rows is None:
            # A failure, such as a CUDA error, may have left this process unusable: give the next trial a new one.
            # Not in reset_config, where Tune counts one death twice and gives the trial up.
            os._exit(1)
        if self._node_problem:
            return StepReport(halt=self._node_problem)
        checkpoint = self._context.checkpoint_folder(self._trial.id)
        # for several workers TrainSlot does this: one rank would delete the reports while another reads them
        if self._workers == 1 and self._rows is None and (hang := read_hang_report(checkpoint)):
            worker_sync.push_traceback(self._context.mirror, checkpoint / TRACEBACK)
            return StepReport(failure=hang)
        report = StepReport()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TrialNote)
            self._train_epochs(report)
        self._push_checkpoint(report)
        report.notes = [str(warning.message) for warning in caught if issubclass(warning.category, TrialNote)]
        return report

    def _train_epochs(self, report: StepReport) -> None:
        """Train until REPORT_SECONDS have passed or the trial's last epoch is done; add the rows to `report`."""
        deadline = time.monotonic() + self._report_seconds
        try:
            if self._rows is None:
                self._rows = self._start_training()
            while not report.rows or (not self._is_last(report) and time.monotonic() < deadline):
                with self._abort_on_hang():
                    report.rows.append(next(self._rows))
        except StopIteration:
            self._failed, report.failure = True, "the task ended before the trial's last epoch"
        except StorageError as error:
            report.halt = f"{error}; then run the command again"
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                full = f"{error.strerror}: {error.filename or self._context.storage}"
                report.halt = f"the storage cannot be written ({full}): make room, then run the command again"
            else:
                self._context.write_traceback(self._trial.id, "".join(traceback.format_exception(error)))
                self._failed, report.failure = True, describe_error(error)

    def _start_training(self) -> Iterator[EpochResult]:
        """Return the trial's rows. Raises StorageError if its files cannot be fetched."""
        context = self._trial_context()
        self._last_checkpoint = context.checkpoint
        with self._context.exclude_other_ranks(context):
            self._context.fetch_files(context)
            self._context.inherit_checkpoint(context)
        train = context.task.prepare
        if context.trial.phase != "prepare":
            train = partial(train_with_costs, names=self._study.costs, known=self._known_costs)
        if self._workers > 1:
            return train(context)
        self._thread = self._thread or TrainThread()
        return self._thread.start(context.trial.id, lambda: train(context))

    def _is_last(self, report: StepReport) -> bool:
        return bool(report.rows) and report.rows[-1]["epoch"] == self._trial.end_epoch

    def _push_checkpoint(self, report: StepReport) -> None:
        """Copy the trial's files to S3 before its rows are reported."""
        if self._context.mirror.uri and not report.halt:
            try:
                worker_sync.push_checkpoint(self._context.mirror, self._trial_context(), self._is_last(report))
            except StorageError as error:
                report.halt, report.rows = f"{error}; then run the command again", []

    @contextmanager
    def _abort_on_hang(self) -> Iterator[None]:
        """End this process if the block exceeds Study.hang_seconds, and leave its stacks for the next one to report."""
        path = self._context.checkpoint_folder(self._trial.id) / HANG_REPORT.format(rank=self._rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            # faulthandler's timer is a C thread: it fires even while the interpreter is stuck
            faulthandler.dump_traceback_later(self._study.hang_seconds, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        path.unlink(missing_ok=True)  # a worker given up for lost may still live and end the same epoch

    def _trial_context(self) -> TrialContext:
        study, trial = self._study, self._trial
        confirm, prepare = trial.phase == "confirm", trial.phase == "prepare"
        configuration = None if prepare else study.find_cell(trial.cell).configure(trial.params)
        return TrialContext(
            trial=trial,
            task=study.task,
            student=configuration and configuration.student,
            loss=configuration and configuration.loss,
            recipe=configuration and configuration.recipe,
            checkpoint=self._context.checkpoint_folder(trial.id),
            storage=self._context.storage,
            device="cuda" if ray.get_gpu_ids() else "cpu",
            recorded_epochs=self._recorded_epochs,
            train_on=study.confirm_on if confirm else "train",
            validate=not confirm or study.confirm_on == "train",
            test=confirm,
            rank=self._rank,
            # one for a teacher: studies of any number of workers share it, and it must be the same for all
            workers=1 if prepare else self._workers,
            gpus=self._gpus,
        )


def describe_error(error: Exception) -> str:
    """Return an error in one line that files and terminals can hold, with the place where it was raised."""
    frame = find_user_frame(error) or traceback.extract_tb(error.__traceback__)[-1]
    message = str(traceback.TracebackException.from_exception(error))  # also of an error whose own str() fails
    line = next((line for line in message.splitlines() if line.strip()), "")
    line = line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]}…"
    text = f"{type(error).__name__}: {line} ({Path(frame.filename).name}:{frame.lineno})"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@dataclass
class StepReport:
    """Result of one step, sent from a worker to the driver."""

    rows: list[EpochResult] = field(default_factory=list)
    failure: str = ""
    """Why the trial failed after these rows."""
    halt: str = ""
    """Why this node cannot run any trial. Not the trial's fault; it ends the run."""
    lost: dict[str, Any] = field(default_factory=dict)
    """The fields of a WorkerFailure, if the trial lost a worker that Ray Train replaces; the trial continues."""
    notes: list[str] = field(default_factory=list)
    """Messages of the task to the user."""
    worker: str = f"{socket.gethostname()}:{os.getpid()}"

    def to_message(self) -> dict[str, str]:
        # a single string: Tune flattens dictionaries and would split `val/accuracy` at its slash
        return {"message": json.dumps(asdict(self))}


def read_hang_report(checkpoint: Path) -> str:
    """Return where a previous process hung in this trial, once: the report is then deleted. Empty if none did."""
    paths = sorted(checkpoint.glob(HANG_REPORT.format(rank="*")))
    text = next(filter(None, [path.read_text() for path in paths]), "")
    if not text:
        return ""
    for path in paths:
        path.unlink()
    (checkpoint / TRACEBACK).write_text(text)
    threads = text.split("\n\n")
    # the thread that trains, where a trial has one of its own: the one that waits for it stands in this file
    stack = next((thread for mark in (TRAIN_FN, __file__) for thread in threads if mark in thread), threads[0])
    innermost = next((line.strip() for line in stack.splitlines() if line.startswith("  File ")), "a place unknown")
    return f"no epoch within {text.splitlines()[0].removeprefix('Timeout (').removesuffix(')!')} h: hung at {innermost}"

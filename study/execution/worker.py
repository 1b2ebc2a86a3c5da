"""What runs inside Ray: one trial after the other in a process that keeps its data, nets and torch.

`TrialWorker` is the actor of one-worker trials. Tune reuses it, so that a trial costs milliseconds to start. It knows
nothing of torch: a task is an iterator of rows, and a row is sent to the driver as text. What goes wrong inside a
trial is reported as that trial's failure; what kills the process is not, and Ray starts the trial again elsewhere.
Several workers of one trial are study/execution/worker_group.py's; each of them is a `Worker` too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import shutil
import socket
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from study.cluster.software_check import WAY_OUT, differences, software
from study.cluster.storage_check import UNSEEN, refusal
from study.space.domains import resolve_params
from study.storage import worker_sync as exchange
from study.storage.dataset import DataSet
from study.storage.mirror import FOLDER, FULL, Mirror, StorageError
from study.study import Study
from study.task import TrialNote
from study.trial import EpochResult, Trial, TrialContext

SENDING_SECONDS = 0.1
"""Epochs faster than this are told together."""

HUNG = ".hung-{rank}.txt"

TRACEBACK = "traceback.txt"
"""Of a trial that failed, beside its checkpoint."""


@dataclass(frozen=True)
class WorkerContext:
    """Where trials keep what outlives a process."""

    study_folder: Path
    storage: Path
    mirror: Mirror = FOLDER
    """Of a storage that lies elsewhere; of a folder, one that moves nothing."""
    data: DataSet | None = None
    """The data set, if that lies elsewhere."""
    software: Mapping[str, str] = field(default_factory=dict)
    """The driver's, which all nodes of a cluster must have; empty where there is none but this machine."""

    def problem(self) -> str:
        """Why no trial can run on this node, which may have joined after the study's start; empty if they can."""
        if not self.software:
            return ""
        if amiss := differences(software(), self.software):
            return f"{platform.node()} {amiss}: {WAY_OUT}"
        seen = self.mirror.uri or (self.study_folder / "study.json").is_file()
        return "" if seen else refusal(self.storage, {platform.node(): UNSEEN})

    def checkpoint(self, trial_id: str) -> Path:
        return self.study_folder / "checkpoints" / trial_id

    def fetch(self, job: TrialContext) -> None:
        """Let this node have what the trial needs."""
        if self.data is not None:
            exchange.retry_with_backoff(self.data.fetch)
        exchange.fetch(self.mirror, job)

    def explain(self, trial_id: str, text: str) -> None:
        """Leave the traceback of a failed trial where the README says it is."""
        self.checkpoint(trial_id).mkdir(parents=True, exist_ok=True)
        path = self.checkpoint(trial_id) / TRACEBACK
        path.write_text(text, encoding="utf-8")
        exchange.push_traceback(self.mirror, path)

    def forget(self, trial_id: str) -> None:
        """Remove the checkpoint of a trial that has ended; elsewhere it goes once that is known there."""
        shutil.rmtree(self.checkpoint(trial_id), ignore_errors=True)
        exchange.forget(self.mirror, self.checkpoint(trial_id))

    def clear(self, trial_id: str) -> None:
        """Remove the checkpoint of a trial that is to start over."""
        shutil.rmtree(self.checkpoint(trial_id), ignore_errors=True)
        exchange.clear(self.mirror, self.checkpoint(trial_id))


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """A reused actor; `config` is a trial as plain values, see `executor.as_config`."""

    def setup(self, config: dict[str, Any], study: Study, workplace: WorkerContext, gpus: float) -> None:
        self._worker = Worker(study, workplace, gpus)
        self._worker.begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._worker.begin(new_config)
        return True

    def step(self) -> dict[str, str]:
        return self._worker.step().message()


class Worker:
    """Trains one trial after the other in this process; of a trial of several workers, `rank`'s part of it."""

    def __init__(self, study: Study, workplace: WorkerContext, gpus: float, rank: int = 0, workers: int = 1):
        self._task_study, self._workplace, self._failed = study, workplace, False
        self._rank, self._workers, self._gpus = rank, workers, gpus
        self._problem = workplace.problem()
        self._left: Path | None = None
        """The checkpoint of the trial before."""
        # together, workers must come to the end of a step after the same epoch
        self._sending_seconds = SENDING_SECONDS if workers == 1 else 0.0

    def begin(self, config: dict[str, Any], meeting: str = "") -> None:
        """Turn to this trial; several workers find each other at `meeting`."""
        exchange.drop_local_copy(self._workplace.mirror, self._left)
        self._trial = Trial(**json.loads(config["trial"]))
        self._recorded = int(config["epochs_done"])
        self._meeting = meeting
        self._rows: Iterator[EpochResult] | None = None

    def step(self) -> StepReport:
        """One epoch, or as many as take no time. That a trial is done is decided by the driver, from its rows."""
        if self._failed and self._rows is None:
            # what failed may have left this process unusable, as an error on a GPU does: the next trial gets another.
            # Here and not in reset_config, where Tune counts one death twice and gives the next trial up.
            os._exit(1)
        if self._problem:
            return StepReport(halt=self._problem)
        told = StepReport()
        alone = self._workers == 1  # several write over what was left while one of them would read it
        if alone and self._rows is None and (reason := read_hang_report(self._workplace.checkpoint(self._trial.id))):
            exchange.push_traceback(self._workplace.mirror, self._workplace.checkpoint(self._trial.id) / TRACEBACK)
            told.failure = reason
            return told
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TrialNote)
            self._advance(told)
        self._leave(told)
        told.notes = [str(warning.message) for warning in caught if issubclass(warning.category, TrialNote)]
        return told

    def _advance(self, told: StepReport) -> None:
        """Train until a row is worth sending: each costs the driver milliseconds."""
        started = time.monotonic()
        try:
            if self._rows is None:
                job = self._job()
                self._left = job.checkpoint
                self._workplace.fetch(job)
                self._rows = _rows(job)
            while not told.rows or (told.rows[-1]["epoch"] < self._trial.epochs and not self._is_time(started)):
                with self._watched():
                    told.rows.append(next(self._rows))
        except StopIteration:
            self._failed, told.failure = True, "the task ended before the trial's last epoch"
        except StorageError as error:
            told.halt = f"{error}; then run the command again"
        except OSError as error:
            if error.errno in FULL:
                full = f"{error.strerror}: {error.filename or self._workplace.storage}"
                told.halt = f"the storage takes no more ({full}): make room, then run the command again"
            else:
                self._failed, told.failure = True, self._explain(error)
        except Exception as error:
            self._failed, told.failure = True, self._explain(error)

    def _leave(self, told: StepReport) -> None:
        """Keep what was written where the storage is, before its rows are told."""
        if self._workplace.mirror.uri and not told.halt:
            whole = bool(told.rows) and told.rows[-1]["epoch"] == self._trial.epochs
            try:
                exchange.push_checkpoint(self._workplace.mirror, self._job(), whole)
            except StorageError as error:
                told.halt, told.rows = f"{error}; then run the command again", []

    def _is_time(self, started: float) -> bool:
        return time.monotonic() - started >= self._sending_seconds

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process if what is done within takes too long, and leave where it hung for the next one to tell."""
        path = self._workplace.checkpoint(self._trial.id) / HUNG.format(rank=self._rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            # in C and in a thread of its own: it acts even while the interpreter is stuck
            faulthandler.dump_traceback_later(self._task_study.hang_seconds, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        path.unlink(missing_ok=True)  # a worker that was given up may live, and end the same epoch

    def _job(self) -> TrialContext:
        study, trial = self._task_study, self._trial
        confirm = trial.phase == "confirm"
        return TrialContext(
            trial=trial,
            task=study.task,
            student=study.find_student(trial.student) if trial.phase != "prepare" else None,
            loss=resolve_params(study.find_arm(trial.arm).loss, trial.params) if trial.phase != "prepare" else None,
            checkpoint=self._workplace.checkpoint(trial.id),
            storage=self._workplace.storage,
            device="cuda" if ray.get_gpu_ids() else "cpu",
            recorded_epochs=self._recorded,
            train_on=study.confirm_on if confirm else "train",
            validate=not confirm or study.confirm_on == "train",
            test=confirm,
            rank=self._rank,
            # one for a teacher: it is kept for studies of any number of workers, and must be the same for all
            workers=1 if trial.phase == "prepare" else self._workers,
            rendezvous_address=self._meeting,
            gpus=self._gpus,
        )

    def _explain(self, error: Exception) -> str:
        """One line for the records; the traceback goes beside the trial's checkpoint."""
        self._workplace.explain(self._trial.id, "".join(traceback.format_exception(error)))
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {what} ({Path(where.filename).name}:{where.lineno})"


@dataclass
class StepReport:
    """What one step tells the driver."""

    rows: list[EpochResult] = field(default_factory=list)
    failure: str = ""
    """Why the trial failed, after these rows."""
    halt: str = ""
    """What keeps this node from running any trial: no trial's fault, and the end of this run."""
    notes: list[str] = field(default_factory=list)
    worker: str = f"{socket.gethostname()}:{os.getpid()}"

    def message(self) -> dict[str, str]:
        # as one string: Tune flattens dictionaries and would split `val/accuracy` at its slash
        return {"message": json.dumps(asdict(self))}


def read_hang_report(checkpoint: Path) -> str:
    """Where an earlier process hung in this trial, told once; empty if none did."""
    paths = sorted(checkpoint.glob(HUNG.format(rank="*")))
    text = next(filter(None, [path.read_text() for path in paths]), "")
    if not text:
        return ""
    for path in paths:
        path.unlink()
    (checkpoint / TRACEBACK).write_text(text)
    threads = text.split("\n\n")
    stack = next((thread for thread in threads if __file__ in thread), threads[0])
    innermost = next((line.strip() for line in stack.splitlines() if line.startswith("  File ")), "a place unknown")
    return f"no epoch within {text.splitlines()[0].removeprefix('Timeout (').removesuffix(')!')} h: hung at {innermost}"


def _rows(job: TrialContext) -> Iterator[EpochResult]:
    return job.task.prepare(job) if job.trial.phase == "prepare" else job.task.train(job)

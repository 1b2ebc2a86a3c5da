"""What runs inside Ray: one trial after the other in a process that keeps its data, nets and torch.

`TrialWorker` is the actor of one-worker trials. Tune reuses it, so that a trial costs milliseconds to start. It knows
nothing of torch: a task is an iterator of rows, and a row is sent to the driver as text. What goes wrong inside a
trial is reported as that trial's failure; what kills the process is not, and Ray starts the trial again elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from study.space import resolve_params
from study.study import Study
from study.trial import Job, Row, Trial


@dataclass(frozen=True)
class Workplace:
    """Where trials keep what outlives a process."""

    study_folder: Path
    storage: Path

    def checkpoint(self, trial_id: str) -> Path:
        return self.study_folder / "checkpoints" / trial_id

    def explain(self, trial_id: str, text: str) -> None:
        """Leave the traceback of a failed trial where the README says it is."""
        self.checkpoint(trial_id).mkdir(parents=True, exist_ok=True)
        (self.checkpoint(trial_id) / "traceback.txt").write_text(text, encoding="utf-8")

    def forget(self, trial_id: str) -> None:
        """Remove the checkpoint of a trial that has ended."""
        shutil.rmtree(self.checkpoint(trial_id), ignore_errors=True)


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """A reused actor; `config` is a trial as plain values, see `executor.as_config`."""

    def setup(self, config: dict[str, Any], study: Study, workplace: Workplace) -> None:
        self._task_study, self._workplace, self._failed = study, workplace, False
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = Trial(**json.loads(config["trial"]))
        self._recorded = int(config["epochs_done"])
        self._rows: Iterator[Row] | None = None

    def step(self) -> dict[str, str]:
        """One epoch. Tune is never told that a trial is done: the driver decides that from the row."""
        if self._failed and self._rows is None:
            # what failed may have left this process unusable, as an error on a GPU does: the next trial gets another.
            # Here and not in reset_config, where Tune counts one death twice and gives the next trial up.
            os._exit(1)
        try:
            if self._rows is None:
                self._rows = _rows(self._job())
            return _message(row=next(self._rows))
        except StopIteration:
            return self._failure("the task ended before the trial's last epoch")
        except Exception as error:
            return self._failure(self._explain(error))

    def _failure(self, reason: str) -> dict[str, str]:
        self._failed = True
        return _message(failure=reason)

    def _job(self) -> Job:
        study, trial = self._task_study, self._trial
        confirm = trial.phase == "confirm"
        return Job(
            trial=trial,
            task=study.task,
            student=study.student(trial.student) if trial.phase != "prepare" else None,
            loss=resolve_params(study.arm(trial.arm).loss, trial.params) if trial.phase != "prepare" else None,
            checkpoint=self._workplace.checkpoint(trial.id),
            storage=self._workplace.storage,
            device="cuda" if ray.get_gpu_ids() else "cpu",
            recorded_epochs=self._recorded,
            train_on=study.confirm_on if confirm else "train",
            validate=not confirm or study.confirm_on == "train",
            test=confirm,
        )

    def _explain(self, error: Exception) -> str:
        """One line for the records; the traceback goes beside the trial's checkpoint."""
        self._workplace.explain(self._trial.id, "".join(traceback.format_exception(error)))
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {what} ({Path(where.filename).name}:{where.lineno})"


def _rows(job: Job) -> Iterator[Row]:
    return job.task.prepare(job) if job.trial.phase == "prepare" else job.task.train(job)


def _message(row: Row | None = None, failure: str = "") -> dict[str, str]:
    # as one string: Tune flattens dictionaries and would split `val/accuracy` at its slash
    worker = f"{socket.gethostname()}:{os.getpid()}"
    return {"message": json.dumps({"row": row, "failure": failure, "worker": worker})}

"""The dashboards a study can be logged to: TensorBoard, MLflow, Weights & Biases. For trackers.py, which has them run.

Their packages are imported when one is opened. Left out are weights, code and machine statistics.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from study.errors import InputError
from study.trial import EpochResult, Trial, TrialState

MLFLOW_STATUS = {TrialState.FAILED: "FAILED", TrialState.INTERRUPTED: "KILLED"}
"""All else is FINISHED: it did what the study asked of it, and its tag `state` says what that was."""
SERVER_SECONDS = 20.0
"""A server of W&B that has not answered for so long counts as away."""


class TensorBoard:
    """A folder of events per trial; parameters for the HParams tab when it ends."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        self._folder, self._new_writer = folder / "tensorboard", SummaryWriter
        self._writers: dict[str, Any] = {}

    def epoch(self, trial: Trial, row: EpochResult) -> None:
        writer = self._writer(trial, row["epoch"])
        for name, value in _values(row).items():
            writer.add_scalar(name, value, row["epoch"])

    def ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        from tensorboardX.summary import hparams

        writer = self._writer(trial, None)
        # the first summary would limit the tab's columns to the parameters of whichever trial is read first
        _, start, end = hparams({"cell": trial.cell, "phase": trial.phase, "seed": str(trial.seed), **trial.params}, {})
        writer.file_writer.add_summary(start)
        writer.file_writer.add_summary(end)
        writer.add_text("state", f"{state} {reason}".strip())
        self._writers.pop(trial.id).close()

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _writer(self, trial: Trial, epoch: int | None) -> Any:
        if trial.id not in self._writers:
            # with its id: a search that goes on may confirm another configuration under the same number
            names = (*filter(None, (trial.student, trial.arm)), f"{trial.phase}-{trial.number}-{trial.id}")
            self._writers[trial.id] = self._new_writer(
                str(self._folder.joinpath(*map(_as_folder, names))),
                purge_step=epoch,  # what an earlier run told of this epoch and later ones is replaced
                filename_suffix=f".{epoch or 0}",  # two runs of one second must not share a file
                flush_secs=2,
            )
        return self._writers[trial.id]


class Mlflow:
    """An experiment per study, a run per trial: in a file of the study's folder unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, folder: Path, question: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read once, when it is imported
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # a quarter of a minute instead of four
        from mlflow import MlflowClient, entities

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        local = "MLFLOW_TRACKING_URI" not in os.environ
        self._client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}" if local else None)
        self._artifacts = str(folder / "mlflow") if local else None
        self._entities, self._name, self._question = entities, folder.name, question
        self._runs: dict[str, tuple[str, int]] = {}
        """Of each trial under way: its run, and the last epoch that an earlier study process sent."""

    def epoch(self, trial: Trial, row: EpochResult) -> None:
        run_id, sent = self._run(trial)
        if row["epoch"] > sent:
            now, values = round(1000 * time.time()), _values(row)
            metrics = [self._entities.Metric(name, value, now, row["epoch"]) for name, value in values.items()]
            self._client.log_batch(run_id, metrics)

    def ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        self._finish(self._run(trial)[0], state, reason)
        del self._runs[trial.id]

    def close(self) -> None:
        while self._runs:
            self._finish(self._runs.popitem()[1][0], TrialState.INTERRUPTED, "")

    def _finish(self, run_id: str, state: TrialState, reason: str) -> None:
        self._client.log_batch(run_id, tags=self._tags({"state": state, "reason": reason}))
        self._client.set_terminated(run_id, MLFLOW_STATUS.get(state, "FINISHED"))

    def _run(self, trial: Trial) -> tuple[str, int]:
        if trial.id not in self._runs:
            query = f"tags.trial_id = '{trial.id}'"
            found = self._client.search_runs([self._experiment], query, max_results=1)
            self._runs[trial.id] = self._continued(found[0]) if found else (self._new(trial), 0)
        return self._runs[trial.id]

    @cached_property
    def _experiment(self) -> str:
        if found := self._client.get_experiment_by_name(self._name):
            return str(found.experiment_id)
        tags = {"mlflow.note.content": self._question}
        return str(self._client.create_experiment(self._name, self._artifacts, tags))

    def _continued(self, run: Any) -> tuple[str, int]:
        self._client.update_run(run.info.run_id, "RUNNING")
        history = (self._client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
        return run.info.run_id, max((metric.step for metrics in history for metric in metrics), default=0)

    def _new(self, trial: Trial) -> str:
        run_id = str(self._client.create_run(self._experiment, run_name=_title(trial)).info.run_id)
        params = [self._entities.Param(name, str(value)) for name, value in trial.params.items()]
        self._client.log_batch(run_id, params=params, tags=self._tags({"trial_id": trial.id, **_identity(trial)}))
        return run_id

    def _tags(self, values: Mapping[str, Any]) -> list[Any]:
        return [self._entities.RunTag(name, str(value)) for name, value in values.items()]


class WandB:
    """A project per study, a run per trial, whose id is the trial's; WANDB_MODE says whether it leaves the machine.

    Raises InputError if it should and there is no account.
    """

    def __init__(self, folder: Path):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb, self._folder = wandb, folder
        self._runs: dict[str, Any] = {}
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            init_timeout=SERVER_SECONDS,
            finish_timeout=SERVER_SECONDS,
            x_save_requirements=False,  # takes longer than all the rest; study.json has the versions
            x_disable_stats=True,  # of the driver's machine, where nothing trains
        )
        self._service, self._closed = wandb.setup(settings), False
        atexit.register(self._exit)
        if self._service.settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise InputError("--log wandb: no account on this machine: run `wandb login`, or set WANDB_MODE=offline")

    def epoch(self, trial: Trial, row: EpochResult) -> None:
        self._run(trial).log(_values(row), step=row["epoch"])

    def ended(self, trial: Trial, state: TrialState, reason: str) -> None:
        self._finish(self._run(trial), state, reason)
        del self._runs[trial.id]

    def close(self) -> None:
        while self._runs:
            self._finish(self._runs.popitem()[1], TrialState.INTERRUPTED, "")
        self._closed = True

    def _exit(self) -> None:
        """Before W&B's own hook, which waits for its server: not again, if `close` has waited for it in vain."""
        if not self._closed and (unhook := getattr(self._service._connection, "_cleanup", None)):
            unhook()

    def _finish(self, run: Any, state: TrialState, reason: str) -> None:
        run.summary.update({"state": str(state), "reason": reason})
        run.finish(exit_code=int(state in (TrialState.FAILED, TrialState.INTERRUPTED)))

    def _run(self, trial: Trial) -> Any:
        if trial.id not in self._runs:
            self._runs[trial.id] = self._wandb.init(
                project=self._folder.name,
                group=trial.cell,
                job_type=trial.phase,
                id=trial.id,
                name=_title(trial),
                config={**_identity(trial), "params": dict(trial.params)},
                dir=self._folder,
                resume="allow",
                reinit="create_new",  # trials run side by side
            )
        return self._runs[trial.id]


def _values(row: EpochResult) -> dict[str, float]:
    schedules = {f"schedule/{name}": value for name, value in row["schedules"].items()}
    return {**row["metrics"], **schedules, "seconds": row["seconds"]}


def _identity(trial: Trial) -> dict[str, str | int]:
    return {
        "cell": trial.cell,
        "student": trial.student,
        "arm": trial.arm,
        "phase": trial.phase,
        "number": trial.number,
        "seed": str(trial.seed),  # a number of 63 bits is rounded on its way to a page
    }


def _title(trial: Trial) -> str:
    return f"{trial.cell} {trial.phase}-{trial.number}"


def _as_folder(name: str) -> str:
    """A name as one folder's, different names as different ones."""
    return re.sub(r"[^\w +,.()-]|^\.", lambda found: f"%{ord(found[0]):02X}", name)

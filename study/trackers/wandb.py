"""The Weights & Biases tracker. Its package is imported when the tracker is opened."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

from study.errors import InputError
from study.trackers.base import describe_trial, flatten_result, format_title
from study.trial import EpochResult, Trial, TrialState

SERVER_SECONDS = 20.0
"""Timeout for W&B's server; long enough for a slow answer, short enough for a server that is down."""


class WandB:
    """A project per study and a run per trial with the trial's id; online or offline by WANDB_MODE.

    Raises InputError if online and no account is configured.
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
            x_save_requirements=False,  # slower than everything else; study.json has the versions
            x_disable_stats=True,  # they would be the driver's, which trains nothing
        )
        self._service, self._closed = wandb.setup(settings), False
        atexit.register(self._remove_exit_hook)
        if self._service.settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise InputError("--log wandb: no account on this machine: run `wandb login`, or set WANDB_MODE=offline")

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        self._open_run(trial).log(flatten_result(row), step=row["epoch"])

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        self._finish(self._open_run(trial), state, reason)
        del self._runs[trial.id]

    def close(self) -> None:
        while self._runs:
            self._finish(self._runs.popitem()[1], TrialState.INTERRUPTED, "")
        self._closed = True

    def _remove_exit_hook(self) -> None:
        """Remove W&B's exit hook, which would wait for its server once more after `close` ran out of time."""
        if not self._closed and (remove := getattr(self._service._connection, "_cleanup", None)):
            remove()

    def _finish(self, run: Any, state: TrialState, reason: str) -> None:
        run.summary.update({"state": str(state), "reason": reason})
        run.finish(exit_code=int(state in (TrialState.FAILED, TrialState.INTERRUPTED)))

    def _open_run(self, trial: Trial) -> Any:
        if trial.id not in self._runs:
            self._runs[trial.id] = self._wandb.init(
                project=self._folder.name,
                group=trial.cell,
                job_type=trial.phase,
                id=trial.id,
                name=format_title(trial),
                config={**describe_trial(trial), "params": dict(trial.params)},
                dir=self._folder,
                resume="allow",
                reinit="create_new",  # trials run concurrently
            )
        return self._runs[trial.id]

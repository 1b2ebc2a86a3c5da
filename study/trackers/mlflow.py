"""The MLflow tracker. Its package is imported when the tracker is opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from study.trackers.base import describe_trial, flatten_result, format_title
from study.trial import EpochResult, Trial, TrialState

STATUS = {TrialState.FAILED: "FAILED", TrialState.INTERRUPTED: "KILLED"}
"""MLflow's status of a trial; any other state is FINISHED. The tag `state` has the state itself."""


class Mlflow:
    """An experiment per study and a run per trial, in the study's folder unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, folder: Path, question: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read once, at import
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds instead of 4 minutes
        from mlflow import MlflowClient, entities

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        local = "MLFLOW_TRACKING_URI" not in os.environ
        self._client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}" if local else None)
        self._artifacts = str(folder / "mlflow") if local else None
        self._entities, self._name, self._question = entities, folder.name, question
        self._runs: dict[str, tuple[str, int]] = {}
        """By trial: the id of its run, and the last epoch that an earlier process sent."""

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        run_id, sent = self._find_or_create_run(trial)
        if row["epoch"] > sent:
            now, values = round(1000 * time.time()), flatten_result(row)
            metrics = [self._entities.Metric(name, value, now, row["epoch"]) for name, value in values.items()]
            self._client.log_batch(run_id, metrics)

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        self._finish(self._find_or_create_run(trial)[0], state, reason)
        del self._runs[trial.id]

    def close(self) -> None:
        while self._runs:
            self._finish(self._runs.popitem()[1][0], TrialState.INTERRUPTED, "")

    def _finish(self, run_id: str, state: TrialState, reason: str) -> None:
        self._client.log_batch(run_id, tags=self._tags({"state": state, "reason": reason}))
        self._client.set_terminated(run_id, STATUS.get(state, "FINISHED"))

    def _find_or_create_run(self, trial: Trial) -> tuple[str, int]:
        if trial.id not in self._runs:
            query = f"tags.trial_id = '{trial.id}'"
            found = self._client.search_runs([self._experiment], query, max_results=1)
            self._runs[trial.id] = self._resume_run(found[0]) if found else (self._create_run(trial), 0)
        return self._runs[trial.id]

    @cached_property
    def _experiment(self) -> str:
        if found := self._client.get_experiment_by_name(self._name):
            return str(found.experiment_id)
        tags = {"mlflow.note.content": self._question}
        return str(self._client.create_experiment(self._name, self._artifacts, tags))

    def _resume_run(self, run: Any) -> tuple[str, int]:
        self._client.update_run(run.info.run_id, "RUNNING")
        history = (self._client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
        return run.info.run_id, max((metric.step for metrics in history for metric in metrics), default=0)

    def _create_run(self, trial: Trial) -> str:
        run_id = str(self._client.create_run(self._experiment, run_name=format_title(trial)).info.run_id)
        params = [self._entities.Param(name, str(value)) for name, value in trial.params.items()]
        self._client.log_batch(run_id, params=params, tags=self._tags({"trial_id": trial.id, **describe_trial(trial)}))
        return run_id

    def _tags(self, values: Mapping[str, Any]) -> list[Any]:
        return [self._entities.RunTag(name, str(value)) for name, value in values.items()]

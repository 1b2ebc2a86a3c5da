"""A trial under way, and the rows that are written of it; docs/records.md explains each column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from study.trial import EpochResult, Trial, TrialState


@dataclass
class RunningTrial:
    """A trial under way: what its next row adds to."""

    trial: Trial
    started: datetime
    epochs_done: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What it runs on: device, cpus, gpus."""
    code: str = ""
    """The version of the code that trains it; of several, all of them, joined by "+"."""
    start_over: bool = False
    """Its checkpoint is of no use: its last epoch is what failed."""

    def add(self, row: EpochResult, worker: str) -> None:
        self.epochs_done = row["epoch"]
        self.seconds += row["seconds"]
        self.metrics, self.worker = row["metrics"], worker

    def continue_with(self, code: str) -> None:
        """Note the version of the code that trains the epochs from here on."""
        earlier = self.code.split("+") if self.epochs_done and self.code else []
        self.code = "+".join(dict.fromkeys([*earlier, code]))


def epoch_row(trial: Trial, row: EpochResult) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "cell": trial.cell,
        "phase": trial.phase,
        "epoch": row["epoch"],
        "seconds": row["seconds"],
        "recorded": datetime.now(UTC),
        "schedules": json.dumps(row["schedules"]),
    } | row["metrics"]


def trial_row(run: RunningTrial, state: TrialState, reason: str, ended: datetime | None = None) -> dict[str, Any]:
    """`ended` is now, unless it is only found out now that the trial has ended."""
    trial = run.trial
    row = {
        "trial_id": trial.id,
        "cell": trial.cell,
        "student": trial.student,
        "arm": trial.arm,
        "phase": trial.phase,
        "number": trial.number,
        "seed": trial.seed,
        "state": str(state),
        "reason": reason,
        "epochs": trial.epochs,
        "epochs_done": run.epochs_done,
        "params": json.dumps(dict(trial.params)),
        "config": json.dumps(trial.config, ensure_ascii=False),
        "seconds": run.seconds,
        "started": run.started,
        "ended": ended or datetime.now(UTC) if state is not TrialState.RUNNING else None,
        "worker": run.worker,
        "code": run.code,
    }
    return row | dict(run.resources) | dict(run.metrics)


def trial_of(row: Mapping[str, Any]) -> Trial:
    """The trial that a row of trials/ is about."""
    return Trial(
        phase=row["phase"],
        student=row["student"],
        arm=row["arm"],
        number=row["number"],
        seed=row["seed"],
        epochs=row["epochs"],
        params=json.loads(row["params"]),
        config=json.loads(row["config"]),
    )

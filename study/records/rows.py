"""A running trial and the rows written about it; docs/records.md explains each column."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeGuard

from study.trial import EpochResult, Link, Trial, TrialState


def is_finite(value: float | None) -> TypeGuard[float]:
    """Return whether a metric of a row can be used: it was measured, and is a finite number."""
    return value is not None and math.isfinite(value)


@dataclass
class RunningTrial:
    """A trial in progress, and the totals that its next row updates."""

    trial: Trial
    started: datetime
    epochs_done: int = 0
    """Number of epochs that this trial has trained."""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """The columns device, cpus and gpus."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs of its student that are known as it starts, which its worker need not measure."""
    code: str = ""
    """The digest of the code that trains it; several digests, if it was resumed with other code, are joined by "+"."""
    start_over: bool = False
    """Discard the checkpoint before training: its last epoch is the one that failed."""

    @property
    def epoch(self) -> int:
        """The last recorded epoch of the run, those before a link of a chain included."""
        return self.trial.start_epoch + self.epochs_done

    def add_epoch(self, row: EpochResult, worker: str) -> None:
        """Add the result of the next epoch."""
        self.epochs_done = row["epoch"] - self.trial.start_epoch
        self.seconds += row["seconds"]
        self.metrics, self.worker = row["metrics"], worker

    def continue_with(self, code: str) -> None:
        """Add the digest of the code that trains the remaining epochs."""
        earlier = self.code.split("+") if self.epochs_done and self.code else []
        self.code = "+".join(dict.fromkeys([*earlier, code]))


def to_epoch_row(trial: Trial, row: EpochResult) -> dict[str, Any]:
    """Return the row of epochs/ for an epoch that has just been reported."""
    return {
        "trial_id": trial.id,
        "cell": trial.cell,
        "phase": trial.phase,
        "epoch": row["epoch"],
        "seconds": row["seconds"],
        "recorded": datetime.now(UTC),
        "schedules": json.dumps(row["schedules"]),
    } | row["metrics"]


def to_trial_row(run: RunningTrial, state: TrialState, reason: str, ended: datetime | None = None) -> dict[str, Any]:
    """Return the row of trials/ for a state; without `ended`, a trial that is not running ended now."""
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
        **(asdict(trial.link) if trial.link else {}),
        "point": trial.point if trial.phase == "confirm" else None,
    }
    return row | dict(run.resources) | dict(run.metrics)


def to_trial(row: Mapping[str, Any]) -> Trial:
    """Return the trial of a row of trials/."""
    return Trial(
        phase=row["phase"],
        student=row["student"],
        arm=row["arm"],
        number=row["number"],
        seed=row["seed"],
        epochs=row["epochs"],
        params=json.loads(row["params"]),
        config=json.loads(row["config"]),
        link=None if row["member"] is None else Link(*(row[item.name] for item in fields(Link))),
        point=row["point"] or 0,
    )

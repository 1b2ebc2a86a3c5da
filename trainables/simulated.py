"""A task with a known answer: learning curves with an optimum, noise, a seed effect and planted failures. No torch.

It is what the engine is tested with, and what a study can be priced with before anything is trained. Resuming,
recording and failing go through the same contract as real training.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from study.trial import Direction, Job, Plan, Preparation, Row

SPEED_EPOCHS = 3.0
"""After so many epochs a curve has covered 63 % of its way."""


@dataclass(frozen=True)
class SimulatedStudent:
    name: str = "student"


@dataclass(frozen=True)
class SimulatedLoss:
    """A method whose final score is 0.9 + gain − (x − 0.3)²; `fails_at` names an epoch in which it raises."""

    x: float = 0.3
    gain: float = 0.0
    fails_at: int = 0
    needs_teacher: bool = True


@dataclass(frozen=True)
class Simulated:
    """Scores rise as (1 − exp(−epoch/3)), plus noise that follows from the trial's seed and the epoch."""

    seconds_per_epoch: float = 0.0
    noise: float = 0.01
    seed_effect: float = 0.01
    teacher_epochs: int = 2

    metrics: ClassVar[Mapping[str, Direction]] = {"train/loss": "min", "val/accuracy": "max", "test/accuracy": "max"}

    def check(self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        return {"data": {"name": "simulated", "fingerprint": "simulated"}}

    def shortened(self, share: float) -> Simulated:
        return replace(self, teacher_epochs=math.ceil(self.teacher_epochs * share))

    def with_precision(self, precision: str) -> Simulated:
        return self

    def with_live_teacher(self) -> Simulated:
        return self

    def preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        if self.teacher_epochs == 0 or (storage / "teachers" / "simulated").exists():
            return []
        return [Preparation("teacher", self.teacher_epochs, {}, note="a simulated teacher")]

    def prepare(self, job: Job) -> Iterator[Row]:
        for row in self._curve(job, 1.0):
            if row["epoch"] == job.trial.epochs:
                (job.storage / "teachers" / "simulated").mkdir(parents=True, exist_ok=True)
            yield row

    def train(self, job: Job) -> Iterator[Row]:
        loss: SimulatedLoss = job.loss
        for row in self._curve(job, 0.9 + loss.gain - (loss.x - 0.3) ** 2):
            if row["epoch"] == loss.fails_at:
                raise ValueError(f"planted failure in epoch {loss.fails_at}")
            yield row

    def summary(self, students: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        return {"teacher": None, "students": {}}

    def _curve(self, job: Job, top: float) -> Iterator[Row]:
        """Rows from the checkpoint on; each is in the checkpoint before it is told."""
        path = job.checkpoint / "state.json"
        rows: list[Row] = json.loads(path.read_text()) if path.is_file() else []
        yield from (row for row in rows if row["epoch"] > job.recorded_epochs)
        for epoch in range(len(rows) + 1, job.trial.epochs + 1):
            time.sleep(self.seconds_per_epoch)
            rows.append(self._row(job, top, epoch))
            job.checkpoint.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".tmp")
            aside.write_text(json.dumps(rows))
            aside.replace(path)
            yield rows[-1]

    def _row(self, job: Job, top: float, epoch: int) -> Row:
        def normal(name: str) -> float:
            return random.Random(f"{job.trial.seed} {name}").gauss(0, 1)

        drift, jitter = self.seed_effect * normal("seed"), self.noise * normal(f"epoch {epoch}")
        score = top * (1 - math.exp(-epoch / SPEED_EPOCHS)) + drift + jitter
        metrics = {"train/loss": 1 - score}
        if job.validate:
            metrics["val/accuracy"] = score
        if job.test and epoch == job.trial.epochs:
            metrics["test/accuracy"] = score
        return Row(epoch=epoch, metrics=metrics, schedules={}, seconds=self.seconds_per_epoch)

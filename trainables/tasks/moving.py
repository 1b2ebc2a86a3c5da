"""A task with a known best schedule: an epoch adds what its settings are worth, and the best ones move. No torch.

Unlike a curve of the simulated task, which depends on the last settings alone, a result here depends on all settings
since the first epoch: a search that changes settings during training must copy what a run has learned.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from study.atomic import atomic_write
from study.trial import EpochResult, Progress, TrialContext
from trainables.tasks.simulated import Simulated
from trainables.training.settings import FloatOrSchedule, check_range, value_at

STEEPNESS = 4.0
"""Loss of an epoch's worth per squared distance from the best setting: a constant costs 10 to 20 % of the optimum."""


@dataclass(frozen=True)
class MovingLoss:
    """Two settings, each in [0, 1]. The best x rises from 0.2 to 0.8 and falls back, the best y falls from 0.9 to 0.1.

    Raises InputError for a setting, or an end of a schedule, out of range.
    """

    x: FloatOrSchedule = 0.5
    y: FloatOrSchedule = 0.5
    needs_teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("x", self.x, low=0, high=1)
        check_range("y", self.y, low=0, high=1)

    def measure_worth(self, progress: Progress) -> float:
        """Return the worth of an epoch with these settings: 1 − 4·(x − best x)² − 4·(y − best y)²."""
        middle = (progress.epoch + 0.5) / progress.epochs
        best_x, best_y = 0.2 + 0.6 * math.sin(math.pi * middle), 0.9 - 0.8 * middle
        distance = (value_at(self.x, progress) - best_x) ** 2 + (value_at(self.y, progress) - best_y) ** 2
        return 1 - STEEPNESS * distance

    def measure_run(self, epochs: int) -> float:
        """Return the mean worth of the epochs of a run: its accuracy without noise, and 1 for the best schedule."""
        return sum(self.measure_worth(Progress(epoch, epochs)) for epoch in range(epochs)) / epochs


@dataclass(frozen=True)
class MovingOptimum(Simulated):
    """A task whose accuracy after epoch e is the sum of the worths of the epochs 1 … e, divided by all epochs.

    Its checkpoint holds the sum. Noise and seed effect are those of the simulated task.
    """

    teacher_epochs: int = 0

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        loss, trial = context.loss, context.trial
        drift = self.seed_effect * random.Random(f"{trial.seed} seed").gauss(0, 1)
        path = context.checkpoint / "learned.txt"
        learned = _read_learned(path)
        for epoch in range(1, trial.epochs + 1):
            if epoch > len(learned):
                time.sleep(self.seconds_per_epoch)
                before = learned[-1] if learned else 0.0
                learned.append(before + loss.measure_worth(Progress(epoch - 1, trial.epochs)) / trial.epochs)
                if context.rank == 0:
                    _write_learned(path, learned)
            if epoch > context.recorded_epochs:
                yield self._make_row(context, epoch, learned[epoch - 1] + drift)

    def _make_row(self, context: TrialContext, epoch: int, accuracy: float) -> EpochResult:
        trial = context.trial
        noise = random.Random(f"{trial.seed} {trial.cell} {epoch}")
        accuracy += self.noise * noise.gauss(0, 1)
        metrics = {"train/loss": 1 - accuracy}
        if context.validate:
            metrics |= {"val/accuracy": accuracy, "val/cost": 1 - accuracy}
        if context.test and epoch == trial.epochs:
            metrics |= {"test/accuracy": accuracy, "test/cost": 1 - accuracy}
        return EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=self.seconds_per_epoch)


def _read_learned(path: Path) -> list[float]:
    """Return the sum of worths after each trained epoch."""
    return [float(line) for line in path.read_text().split()] if path.is_file() else []


def _write_learned(path: Path, learned: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(map(repr, learned)))

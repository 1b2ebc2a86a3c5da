"""A task with a known optimum: simulated learning curves with noise, a seed effect and planted failures. No torch.

It tests the engine through the interface of real training (study.task.Task). Results are a function of the trial and
the epoch; a checkpoint holds only the number of epochs trained.
"""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from study.errors import InputError
from study.identity import IF_SET
from study.task import LATENCY, MACS, PARAMETERS, SPLITS, Metric, Plan, Preparation, TrialNote, TrialProfile
from study.trial import EpochResult, Progress, Split, TrialContext
from trainables.tasks.fault import Fault
from trainables.training.schedules import Values
from trainables.training.settings import FloatOrSchedule, value_at

LAST = Progress(999, 1000)
"""The last epoch of a run, for schedules of up to 1,000 stages."""
LATENCY_NOISE = 0.3
"""Share by which a latency that is measured again may differ: neighbouring widths can change places."""
ACCURACY, COST = Metric("accuracy", "max", "%", 2), Metric("cost", "min")


@dataclass(frozen=True)
class SimulatedStudent:
    """A student; with a width, its accuracy falls short by 0.2/width, and its costs grow with the width."""

    name: str = "student"
    width: int | None = field(default=None, metadata=IF_SET)

    @property
    def shortfall(self) -> float:
        """The accuracy that its width costs: where nothing else is searched, all widths are on the Pareto front."""
        return 0.0 if self.width is None else 0.2 / self.width


@dataclass(frozen=True)
class Extra:
    """An optional part of a loss, worth 0.02 − (z − 0.5)²: for spaces with conditional settings."""

    z: float = 0.5


@dataclass(frozen=True)
class SimulatedLoss:
    """A loss whose final accuracy and cost are known. With schedules for x and y, they are those of the last epoch."""

    x: FloatOrSchedule = 0.3
    y: FloatOrSchedule = 0.6
    gain: float = 0.0
    extra: Extra | None = None
    fault: Fault | None = None
    needs_teacher: bool = True

    def at(self, progress: Progress) -> Self:
        """Return this loss with the values that its schedules have at `progress`."""
        x, y = value_at(self.x, progress), value_at(self.y, progress)
        return self if (x, y) == (self.x, self.y) else replace(self, x=x, y=y)

    @property
    def score(self) -> float:
        """The limit of accuracy: 0.9 + gain − (x − 0.3)² − (y − 0.6)² + the worth of `extra`."""
        worth = 0.02 - (self.extra.z - 0.5) ** 2 if self.extra is not None else 0.0
        x, y = (value_at(setting, LAST) for setting in (self.x, self.y))
        return 0.9 + self.gain - (x - 0.3) ** 2 - (y - 0.6) ** 2 + worth

    @property
    def cost(self) -> float:
        """The limit of cost: (x − 0.7)². The Pareto front is x from 0.3 to 0.7. Source: Schaffer 1985."""
        return (value_at(self.x, LAST) - 0.7) ** 2


@dataclass(frozen=True)
class Simulated:
    """A task whose accuracy rises as 1 − exp(−epoch/3) to its loss's score, and whose cost falls from 1 to its loss's.

    A seed shifts accuracies by `seed_effect` · N(0, 1), equally in all cells; each epoch of each cell adds independent
    noise, `noise` · N(0, 1), to either metric. The `teacher` is such a curve too. Without `checkpoints` an interrupted
    trial restarts from its first epoch.
    """

    seconds_per_epoch: float = 0.0
    noise: float = 0.01
    seed_effect: float = 0.01
    teacher_epochs: int = 2
    teacher: SimulatedLoss = SimulatedLoss(gain=0.1)
    checkpoints: bool = True

    metrics: ClassVar[Mapping[str, Metric]] = {
        "train/loss": Metric("loss", "min"),
        "val/accuracy": ACCURACY,
        "val/cost": COST,
        "test/accuracy": ACCURACY,
        "test/cost": COST,
    }
    prediction: ClassVar[str] = ""
    recipe: ClassVar[None] = None

    def with_recipe(self, recipe: Any) -> Simulated:
        if recipe is not None:
            raise InputError(f"recipe is {recipe!r}; a simulated task has no recipe: leave it out")
        return self

    def make_schedule(self, values: Sequence[float]) -> Values:
        return Values(*values)

    def check(
        self,
        students: tuple[Any, ...],
        losses: tuple[Any, ...],
        storage: Path,
        trained_on: tuple[Split, ...] = SPLITS,
        recipes: tuple[Any, ...] | None = None,
    ) -> dict[str, Any]:
        return {"data": {"name": "simulated", "fingerprint": "simulated"}}

    def with_shorter_preparations(self, share: float) -> Simulated:
        return replace(self, teacher_epochs=math.ceil(self.teacher_epochs * share))

    def with_precision(self, precision: str) -> Simulated:
        return self

    def with_live_teacher(self) -> Simulated:
        return self

    def with_teacher_file(self, path: Path) -> Simulated:
        raise InputError(f"the teacher of this task is simulated; leave out --teacher {path}")

    def list_artifacts(self) -> tuple[str, ...]:
        return ("teachers/simulated",)

    def is_intact(self, path: Path) -> bool:
        return True

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        exists = (storage / "teachers" / "simulated").exists()
        step = Preparation("teacher", self.teacher_epochs, {}, note="a simulated teacher")
        return [step] if plan.runs and self.teacher_epochs and not exists else []

    def prepare(self, context: TrialContext) -> Iterator[EpochResult]:
        for result in self._simulate(context, self.teacher):
            if result["epoch"] == context.trial.epochs:  # the generator may not be resumed after its last result
                folder = context.storage / "teachers" / "simulated"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "made").touch()  # S3 has no empty folders
            yield result

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        student = context.student  # of any class, as a space file may have its own
        shortfall = student.shortfall if isinstance(student, SimulatedStudent) else 0.0
        return self._simulate(context, context.loss, shortfall)

    def profile(self, context: TrialContext, batches: int) -> TrialProfile:
        """Simulate an epoch; each batch takes 1 MiB of 1 GiB."""
        time.sleep(self.seconds_per_epoch)
        if context.loss is not None and context.loss.fault is not None:
            context.loss.fault.trigger()
        return TrialProfile(self.seconds_per_epoch, 10, batches * 2**20, 0, 2**30)

    def describe_models(self, students: Mapping[str, Any], storage: Path) -> dict[str, Any]:
        return {"teacher": None, "students": {}}

    @property
    def costs(self) -> Collection[str]:
        return (PARAMETERS, MACS, LATENCY)

    def measure_student(self, student: SimulatedStudent, names: Collection[str]) -> dict[str, float]:
        """Return 100·width² parameters, 10,000·width² MACs, and a latency of width ms with noise that is not seeded."""
        width = student.width or 1
        noise = random.SystemRandom().uniform(1.0, 1.0 + LATENCY_NOISE)
        costs = {PARAMETERS: 100.0 * width**2, MACS: 10_000.0 * width**2, LATENCY: width * noise}
        return {name: costs[name] for name in names}

    def measure_cost(self, student: Any, storage: Path) -> dict[str, Any]:
        return {}

    def _simulate(self, context: TrialContext, loss: SimulatedLoss, shortfall: float = 0.0) -> Iterator[EpochResult]:
        """Yield the results of epochs not yet recorded; the checkpoint holds an epoch before its result is yielded."""
        fault = loss.fault if loss.fault is not None and loss.fault.hits(context.trial) else None
        drift = self.seed_effect * random.Random(f"{context.trial.seed} seed").gauss(0, 1)
        path = context.checkpoint / "trained_epochs"
        trained = _read_checkpoint(path) if self.checkpoints else 0
        for epoch in range(1, context.trial.epochs + 1):
            if epoch > trained:
                time.sleep(self.seconds_per_epoch)
                if fault is not None and epoch >= fault.epoch:
                    fault.trigger()
                if self.checkpoints and context.rank == 0:
                    _mark_epoch(path)
            if epoch > context.recorded_epochs:
                diverged = fault is not None and fault.kind == "nan" and epoch >= fault.epoch
                now = loss.at(Progress(epoch - 1, context.trial.epochs))
                score = math.nan if diverged else now.score - shortfall
                yield self._make_result(context, epoch, score, now.cost, drift)

    def _make_result(self, context: TrialContext, epoch: int, score: float, cost: float, drift: float) -> EpochResult:
        rng = random.Random(f"{context.trial.seed} {context.trial.cell} {epoch}")
        progress = 1 - math.exp(-epoch / 3)
        accuracy = score * progress + drift + self.noise * rng.gauss(0, 1)
        cost = 1 - (1 - cost) * progress + self.noise * rng.gauss(0, 1)
        metrics = {"train/loss": 1 - accuracy}
        if context.validate:
            metrics |= {"val/accuracy": accuracy, "val/cost": cost}
        if context.test and epoch == context.trial.epochs:
            metrics |= {"test/accuracy": accuracy, "test/cost": cost}
        return EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=self.seconds_per_epoch)


def _read_checkpoint(path: Path) -> int:
    """Return the number of trained epochs, one mark each; a damaged checkpoint is deleted with a warning."""
    marks = path.read_bytes() if path.is_file() else b""
    if marks.strip(b"."):
        path.unlink()
        note = f"checkpoint {path} is damaged; the trial restarts from its first epoch"
        warnings.warn(note, TrialNote, stacklevel=2)
        return 0
    return len(marks)


def _mark_epoch(path: Path) -> None:
    # appending one byte is atomic; replacing the file would cost most of a millisecond
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b".")

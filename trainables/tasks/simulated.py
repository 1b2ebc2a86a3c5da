"""A task with a known answer: learning curves with an optimum, noise, a seed effect and planted failures. No torch.

It is what the engine is tested with, through the same contract as real training. Rows follow from a trial and its
epoch alone; all that a checkpoint holds is how many epochs are trained.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from study.errors import InputError
from study.space.domains import Choice, Domain, Value, resolve
from study.task import SPLITS, Plan, Preparation, TrialNote, TrialProfile
from study.trial import Direction, EpochResult, Split, Trial, TrialContext

BEST = {"x": 0.3, "y": 0.6, "z": 0.5, "gain": math.inf}  # where a score is highest, each field by itself
FaultKind = Literal["exception", "nan", "hang", "memory", "killed"]


@dataclass(frozen=True)
class Fault:
    """A planted failure, from an epoch on: in all trials, in those of one number, in a share of them drawn by seed.

    An "exception" is a ValueError, "memory" a MemoryError, a "hang" never ends, and "killed" is SIGKILL to the process;
    these come before the epoch's row. "nan" fails in no way but that losses and accuracies are NaN.
    """

    kind: FaultKind
    epoch: int = 1
    trial: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise InputError(f"fault: kind is {self.kind!r}; allowed are {', '.join(map(repr, get_args(FaultKind)))}")
        if self.epoch < 1 or not 0 <= self.share <= 1:
            raise InputError(f"fault: epoch {self.epoch}, share {self.share}; allowed are from 1, and from 0 to 1")

    def hits(self, trial: Trial) -> bool:
        return self.trial in (None, trial.number) and random.Random(f"{trial.seed} fault").random() < self.share

    def strike(self) -> None:
        """Go wrong here and now; a "nan" shows in the rows alone."""
        if self.kind in ("exception", "memory"):
            failure = ValueError if self.kind == "exception" else MemoryError
            raise failure(f"planted failure in epoch {self.epoch}")
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.kind == "hang":
            time.sleep(1)


@dataclass(frozen=True)
class SimulatedStudent:
    name: str = "student"


@dataclass(frozen=True)
class Extra:
    """A part that a method may have or not, worth 0.02 − (z − 0.5)²: for spaces with conditional settings."""

    z: float = 0.5


@dataclass(frozen=True)
class SimulatedLoss:
    """A method whose final accuracy and cost are known."""

    x: float = 0.3
    y: float = 0.6
    gain: float = 0.0
    extra: Extra | None = None
    fault: Fault | None = None
    needs_teacher: bool = True

    @property
    def score(self) -> float:
        """0.9 + gain − (x − 0.3)² − (y − 0.6)² + the worth of `extra`: what accuracy tends to."""
        worth = 0.02 - (self.extra.z - 0.5) ** 2 if self.extra is not None else 0.0
        return 0.9 + self.gain - (self.x - 0.3) ** 2 - (self.y - 0.6) ** 2 + worth

    @property
    def cost(self) -> float:
        """(x − 0.7)²: what cost tends to. The Pareto front is x from 0.3 to 0.7. Source: Schaffer 1985."""
        return (self.x - 0.7) ** 2


def optimum(space: SimulatedLoss) -> float:
    """The highest `score` in a space of real domains and a choice of `extra`; a search's regret is measured from it."""
    return float(resolve(space, _best).score)


def _best(name: str, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        scores = [SimulatedLoss(extra=resolve(option, _best)).score for option in domain.options]
        return domain.labels[scores.index(max(scores))]
    return min(max(BEST[name.split(".")[-1]], domain.low), domain.high)


@dataclass(frozen=True)
class Simulated:
    """Accuracy rises as 1 − exp(−epoch/3) towards its loss's score, and cost falls from 1 towards its loss's cost.

    A seed shifts accuracies by `seed_effect` · N(0, 1), the same in all cells; each epoch of each cell adds `noise` ·
    N(0, 1) of its own to either metric. The `teacher` is such a curve too. Without `checkpoints`, trials start anew.
    """

    seconds_per_epoch: float = 0.0
    noise: float = 0.01
    seed_effect: float = 0.01
    teacher_epochs: int = 2
    teacher: SimulatedLoss = SimulatedLoss(gain=0.1)
    checkpoints: bool = True

    metrics: ClassVar[Mapping[str, Direction]] = {
        "train/loss": "min",
        "val/accuracy": "max",
        "val/cost": "min",
        "test/accuracy": "max",
        "test/cost": "min",
    }

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        return {"data": {"name": "simulated", "fingerprint": "simulated"}}

    def with_shorter_preparations(self, share: float) -> Simulated:
        return replace(self, teacher_epochs=math.ceil(self.teacher_epochs * share))

    def with_precision(self, precision: str) -> Simulated:
        return self

    def with_live_teacher(self) -> Simulated:
        return self

    def list_artifacts(self) -> tuple[str, ...]:
        return ("teachers/simulated",)

    def is_intact(self, path: Path) -> bool:
        return True

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        kept = (storage / "teachers" / "simulated").exists()
        step = Preparation("teacher", self.teacher_epochs, {}, note="a simulated teacher")
        return [step] if plan.runs and self.teacher_epochs and not kept else []

    def prepare(self, job: TrialContext) -> Iterator[EpochResult]:
        for row in self._curve(job, self.teacher):
            if row["epoch"] == job.trial.epochs:  # nobody asks for more after the last row
                (job.storage / "teachers" / "simulated").mkdir(parents=True, exist_ok=True)
                (job.storage / "teachers" / "simulated" / "made").touch()  # where folders are nothing by themselves
            yield row

    def train(self, job: TrialContext) -> Iterator[EpochResult]:
        return self._curve(job, job.loss)

    def profile(self, job: TrialContext, batches: int) -> TrialProfile:
        """An epoch, of which each batch takes 1 MiB of 1 GiB."""
        time.sleep(self.seconds_per_epoch)
        if job.loss is not None and job.loss.fault is not None:
            job.loss.fault.strike()
        return TrialProfile(self.seconds_per_epoch, 10, batches * 2**20, 0, 2**30)

    def describe_models(self, students: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        return {"teacher": None, "students": {}}

    def measure_cost(self, student: Any, storage: Path) -> dict[str, Any]:
        return {}

    def _curve(self, job: TrialContext, loss: SimulatedLoss) -> Iterator[EpochResult]:
        """Rows of the epochs that are not on record; an epoch is in the checkpoint before it is told."""
        fault = loss.fault if loss.fault is not None and loss.fault.hits(job.trial) else None
        drift = self.seed_effect * random.Random(f"{job.trial.seed} seed").gauss(0, 1)
        path = job.checkpoint / "trained_epochs"
        trained = _load(path) if self.checkpoints else 0
        for epoch in range(1, job.trial.epochs + 1):
            if epoch > trained:
                time.sleep(self.seconds_per_epoch)
                if fault is not None and epoch >= fault.epoch:
                    fault.strike()
                if self.checkpoints and job.rank == 0:
                    _save(path)
            if epoch > job.recorded_epochs:
                lost = fault is not None and fault.kind == "nan" and epoch >= fault.epoch
                yield self._row(job, epoch, math.nan if lost else loss.score, loss.cost, drift)

    def _row(self, job: TrialContext, epoch: int, score: float, cost: float, drift: float) -> EpochResult:
        jitter = random.Random(f"{job.trial.seed} {job.trial.cell} {epoch}")
        way = 1 - math.exp(-epoch / 3)
        accuracy = score * way + drift + self.noise * jitter.gauss(0, 1)
        cost = 1 - (1 - cost) * way + self.noise * jitter.gauss(0, 1)
        metrics = {"train/loss": 1 - accuracy}
        if job.validate:
            metrics |= {"val/accuracy": accuracy, "val/cost": cost}
        if job.test and epoch == job.trial.epochs:
            metrics |= {"test/accuracy": accuracy, "test/cost": cost}
        return EpochResult(epoch=epoch, metrics=metrics, schedules={}, seconds=self.seconds_per_epoch)


def _load(path: Path) -> int:
    """How many epochs a checkpoint says are trained: a mark for each. Of a damaged one the user is told."""
    marks = path.read_bytes() if path.is_file() else b""
    if marks.strip(b"."):
        path.unlink()
        note = f"checkpoint {path} is damaged; the trial starts again from its first epoch"
        warnings.warn(note, TrialNote, stacklevel=2)
        return 0
    return len(marks)


def _save(path: Path) -> None:
    # one mark more is written or not, whatever happens; replacing a file would cost most of a millisecond
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b".")

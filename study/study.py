"""Study, Arm and Budget: what a space file writes down, checked whole before anything starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from study.errors import InputError
from study.identity import LIMIT, derived_seed, describe
from study.search.halving import Never, SuccessiveHalving
from study.search.samplers import Sampler, Tpe, WarmStart, trials_of
from study.space.domains import Value, corners, domains
from study.space.params import params_of
from study.task import DistillationMethod, Plan, Task
from study.trial import Direction, Phase, format_cell_name
from study.validation import check


@dataclass(frozen=True)
class Arm:
    """One row of a comparison table: a method, with or without a search space.

    An arm whose loss contains domains is searched first; one without goes straight to confirm. A baseline is an
    arm like any other, trained in the same study with the same seeds.
    """

    name: str
    loss: DistillationMethod
    baseline: bool = False
    versus: str | None = None
    """The arm this one is compared with; without it, the study's first baseline."""
    published: str | None = None
    """The name of this method in reports/analysis/published.csv, if a paper reports it."""
    students: tuple[str, ...] | None = None
    """The names of the students it is for; without them, all. A net that is only a yardstick needs one arm alone."""
    first: tuple[DistillationMethod, ...] = ()
    """Losses to try before the search proposes its own, such as the published settings: whole ones, without domains,
    that lie in this arm's search space. They are its first trials, not further ones."""

    @property
    def searched(self) -> bool:
        return next(domains(self.loss), None) is not None

    @property
    def first_points(self) -> list[dict[str, Value]]:
        """The parameters of the losses to try first.

        Raises InputError naming what lies outside the search space.
        """
        return [params_of(self.loss, loss) for loss in self.first]


@dataclass(frozen=True)
class Budget:
    """What a study may spend: `trials` per searched cell, `epochs` per trial, confirm `seeds` per cell.

    Trials and seeds may be raised later: the study then goes on. The caps may be changed at any time.
    """

    trials: int
    epochs: int
    seeds: int
    wall_hours: float | None = field(default=None, metadata=LIMIT)
    """The study runs no longer than this, all its runs together; what is under way is then interrupted."""
    gpu_hours: float | None = field(default=None, metadata=LIMIT)
    """Its trials' epochs take no more GPU time than this, all its runs together; a trial's share of a GPU counts."""

    def __post_init__(self) -> None:
        for name in ("wall_hours", "gpu_hours"):
            hours = getattr(self, name)
            if hours is not None and not (isinstance(hours, int | float) and 0 < hours < math.inf):
                raise InputError(
                    f"budget: {name} is {hours!r}; allowed is a number of hours above 0, or None for no cap"
                )
        for name in ("trials", "epochs", "seeds"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise InputError(f"budget: {name} is {value!r}; allowed is a whole number, at least 1")
            if value < 1:
                raise InputError(f"budget: {name} is {value}; it must be at least 1")


@dataclass(frozen=True)
class Cell:
    """A student under an arm: what is searched and confirmed together."""

    student: Any
    arm: Arm

    @property
    def name(self) -> str:
        return format_cell_name(self.student.name, self.arm.name)


@dataclass(frozen=True)
class Study:
    """A question, and all that is needed to answer it.

    Raises InputError for what cannot be a fair or a working study: no baseline, two arms of one name, an arm
    compared with an arm that does not exist, a selection metric that is not on validation, a domain whose ends the
    loss refuses.
    """

    name: str
    question: str
    task: Task
    students: tuple[Any, ...]
    """Frozen dataclasses with a `name`; the task knows how to build them."""
    arms: tuple[Arm, ...]
    budget: Budget
    metric: str = "val/accuracy"
    """What the search optimises, and what alone decides which configuration is confirmed: a metric on validation, at
    the last epoch."""
    objectives: tuple[str, ...] = ()
    """Further validation metrics that the search trades off against `metric`; they need stopping=Never()."""
    seed: int = 0
    sampler: Sampler = field(default_factory=Tpe)
    stopping: SuccessiveHalving | Never = field(default_factory=SuccessiveHalving)
    warm_start: WarmStart | None = None
    workers_per_trial: int = 1
    """How many processes train a trial together, each a part of every batch, on one CPU and one GPU of its own."""
    confirm_on: Literal["train+val", "train"] = "train+val"
    """Confirm retrains on train + validation. With "train", validation stays apart and the best-validation
    epoch is recorded beside the last one."""
    readings: tuple[str, ...] = ()
    """How this study reads what its papers leave open, a sentence each; the report prints them."""
    hang_seconds: float = field(default=3600.0, metadata=LIMIT)
    """A trial that tells no epoch for so long counts as hung, and fails."""
    protocol: str = ""
    """The paper whose data and protocol this study follows to the letter ("P1"); empty if it follows none."""

    def __post_init__(self) -> None:
        check(self)
        describe(self)  # raises for what could not be identified later

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(
            Cell(student, arm)
            for student in self.students
            for arm in self.arms
            if arm.students is None or student.name in arm.students
        )

    @property
    def direction(self) -> Direction:
        return self.task.metrics[self.metric].direction

    @property
    def targets(self) -> dict[str, Direction]:
        """What the search is told of a completed trial, by name: `metric` first, then `objectives`."""
        return {name: self.task.metrics[name].direction for name in (self.metric, *self.objectives)}

    def trials(self, arm: Arm) -> int:
        """How many trials the search of a cell under this arm takes."""
        return trials_of(self.sampler, arm.loss, arm.first_points, self.budget.trials) if arm.searched else 0

    @property
    def test_metric(self) -> str:
        """The selection metric's name on the test split: what confirm reports."""
        return "test/" + self.metric.split("/", 1)[1]

    @property
    def plan(self) -> Plan:
        """The trainings of arms that need the teacher."""
        taught = [arm for arm in self.arms if needs_teacher(arm)]
        searches = max(map(self.trials, taught), default=0)
        confirms = self.budget.seeds if taught else 0
        return Plan(
            tuple((self.trial_seed("search", number), "train") for number in range(searches))
            + tuple((self.trial_seed("confirm", number), self.confirm_on) for number in range(confirms)),
            self.budget.epochs,
        )

    def trial_seed(self, phase: Phase, number: int) -> int:
        """The seed of a trial: of equal number in all cells, so that search and confirm are paired across arms."""
        return derived_seed(self.seed, phase, number)

    def versus(self, arm: Arm) -> Arm | None:
        """The arm that `arm` is compared with; None for the study's first baseline."""
        first = next(other for other in self.arms if other.baseline)
        if arm.versus is None:
            return None if arm is first else first
        return self.arm(arm.versus)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def student(self, name: str) -> Any:
        return next(student for student in self.students if student.name == name)


def needs_teacher(arm: Arm) -> bool:
    """Whether any loss that this arm may resolve to reads the teacher's outputs."""
    return any(loss.needs_teacher for loss in corners(arm.loss))

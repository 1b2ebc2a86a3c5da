"""Study, Arm and Budget: what a space file writes down, checked whole before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from study.describe import derived_seed, describe
from study.errors import InputError
from study.search import Sampler, Tpe
from study.space import corners, domains
from study.stopping import Never, SuccessiveHalving
from study.trial import Direction, Method, Phase, Plan, Task, cell_name


@dataclass(frozen=True)
class Arm:
    """One row of a comparison table: a method, with or without a search space.

    An arm whose loss contains domains is searched first; one without goes straight to confirm. A baseline is an
    arm like any other, trained in the same study with the same seeds.
    """

    name: str
    loss: Method
    baseline: bool = False
    versus: str | None = None
    """The arm this one is compared with; without it, the study's first baseline."""
    published: str | None = None
    """The name of this method in reports/published.csv, if a paper reports it."""

    @property
    def searched(self) -> bool:
        return next(domains(self.loss), None) is not None


@dataclass(frozen=True)
class Budget:
    """What a study may spend: `trials` per searched cell, `epochs` per trial, confirm `seeds` per cell."""

    trials: int
    epochs: int
    seeds: int

    def __post_init__(self) -> None:
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
        return cell_name(self.student.name, self.arm.name)


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
    """What the search optimises: a metric on validation, at the last epoch."""
    seed: int = 0
    sampler: Sampler = field(default_factory=Tpe)
    stopping: SuccessiveHalving | Never = field(default_factory=SuccessiveHalving)
    confirm_on: Literal["train+val", "train"] = "train+val"
    """Confirm retrains on train + validation. With "train", validation stays apart and the best-validation
    epoch is recorded beside the last one."""
    readings: tuple[str, ...] = ()
    """How this study reads what its papers leave open, a sentence each; the report prints them."""
    protocol: str = ""
    """The paper whose data and protocol this study follows to the letter ("P1"); empty if it follows none."""

    def __post_init__(self) -> None:
        _check_names(self)
        _check_baselines(self)
        _check_metric(self)
        if self.confirm_on not in ("train+val", "train"):
            raise InputError(f"confirm_on is {self.confirm_on!r}; allowed are 'train+val' and 'train'")
        for arm in self.arms:
            _check_domains(arm)
        describe(self)  # raises for what could not be identified later

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(student, arm) for student in self.students for arm in self.arms)

    @property
    def direction(self) -> Direction:
        return self.task.metrics[self.metric]

    @property
    def test_metric(self) -> str:
        """The selection metric's name on the test split: what confirm reports."""
        return "test/" + self.metric.split("/", 1)[1]

    @property
    def plan(self) -> Plan:
        """The trainings of arms that need the teacher."""
        taught = [arm for arm in self.arms if needs_teacher(arm)]
        searches = self.budget.trials if any(arm.searched for arm in taught) else 0
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


METHOD = ("needs_teacher",)
"""What the engine reads of a loss; its task asks for more."""


def _check_names(study: Study) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", study.name, re.ASCII):
        raise InputError(f"study name {study.name!r}: use letters, digits, '.', '_' and '-', at most 100 of them")
    if study.name in ("teachers", "outputs"):
        raise InputError(
            f"study name {study.name!r} is taken: teachers and their outputs are kept there; choose another"
        )
    if not study.students:
        raise InputError("a study needs at least one student; students is empty")
    for kind, names in (("arm", [a.name for a in study.arms]), ("student", [s.name for s in study.students])):
        slashed = [name for name in names if " / " in name or not name]
        if slashed:
            raise InputError(f"{kind} name {slashed[0]!r}: it must have letters, and no ' / ', which joins cell names")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"two {kind}s are called {twice[0]!r}: names tell results apart, give each its own")


def _check_baselines(study: Study) -> None:
    names = [arm.name for arm in study.arms]
    if not any(arm.baseline for arm in study.arms):
        raise InputError(
            f"no arm is a baseline (arms: {', '.join(names) or 'none'}): mark the one others are compared with, "
            "Arm(…, baseline=True); without it a difference means nothing"
        )
    for arm in study.arms:
        if arm.versus is not None and (arm.versus not in names or arm.versus == arm.name):
            raise InputError(
                f"arm {arm.name!r} is compared with {arm.versus!r}; the other arms are: {', '.join(names)}"
            )


def _check_metric(study: Study) -> None:
    allowed = [name for name in study.task.metrics if name.startswith("val/")]
    if study.metric not in allowed:
        raise InputError(
            f"metric {study.metric!r} cannot select configurations: only validation metrics may ({', '.join(allowed)})"
        )


def _check_domains(arm: Arm) -> None:
    try:
        for loss in corners(arm.loss):
            for wanted in METHOD:
                if not hasattr(loss, wanted):
                    raise InputError(f'{type(loss).__name__} has no {wanted!r}: see "Adding a loss" in README.md')
    except InputError as error:
        raise InputError(f"arm {arm.name!r} at an end of its search space: {error}") from None

"""A trial: its identity, its states, the context a worker receives and the result of an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from study.identity import digest

if TYPE_CHECKING:
    from study.task import Task

Direction = Literal["max", "min"]
Phase = Literal["prepare", "search", "confirm"]
Split = Literal["train", "val", "train+val", "test"]


SKIPPED = "skipped by hand"
"""Start of the reason of a search trial that the user ended; its state is PRUNED."""


class TrialState(StrEnum):
    """The state of a trial. Only the last recorded row of a trial counts."""

    RUNNING = "RUNNING"
    """Assigned to a worker. Resumed by the next run if the study's process is gone."""
    COMPLETE = "COMPLETE"
    """Trained to its last epoch."""
    PRUNED = "PRUNED"
    """Stopped by the study's stopping rule, which `reason` quotes, or by hand."""
    FAILED = "FAILED"
    """Failed by its own fault: an exception, a non-finite loss, a worker lost too often. `reason` names it."""
    INTERRUPTED = "INTERRUPTED"
    """Stopped from outside, by Ctrl-C or an exhausted budget. Resumed from its checkpoint by the next run."""
    SUPERSEDED = "SUPERSEDED"
    """Confirmed a configuration that a longer search has since replaced. No longer counts."""

    @property
    def is_finished(self) -> bool:
        """True once no later run will resume the trial."""
        return self not in (TrialState.RUNNING, TrialState.INTERRUPTED)


@dataclass(frozen=True)
class Link:
    """The part of a population member's training that one trial does; a member is a chain of such trials."""

    member: int
    start_epoch: int
    """Number of epochs that its parent has trained; 0 for the first link of a chain."""
    end_epoch: int
    """Number of epochs trained once it has ended."""
    parent: str
    """Id of the trial whose checkpoint it continues; empty for the first link of a chain."""


@dataclass(frozen=True)
class Trial:
    """One fully determined training run: equal fields give an equal id, and an id is trained once."""

    phase: Phase
    student: str
    """The student's name; empty for a preparation."""
    arm: str
    number: int
    """Position within its cell and phase, from 0. Confirm trials of equal number share their seed across arms."""
    seed: int
    epochs: int
    """Length of the run; a link of a chain trains a part of it."""
    params: Mapping[str, Any]
    """The values proposed by the search, by domain name; empty where nothing is searched."""
    config: Any = field(repr=False)
    """The description of everything that determines the outcome: task with its recipe, student, loss, splits."""
    link: Link | None = None
    """The part of the run to train, for a member of a population; None for the whole run."""
    point: int = 0
    """Position of a confirm trial's parameters among those that its cell confirms: 0 is the best by validation."""

    @classmethod
    def from_json(cls, text: str) -> Trial:
        """Return the trial of a JSON text of its fields."""
        fields = json.loads(text)
        return cls(**fields | {"link": fields["link"] and Link(**fields["link"])})

    @property
    def start_epoch(self) -> int:
        """Number of epochs that are trained before this trial: 0 but for a link of a chain."""
        return self.link.start_epoch if self.link else 0

    @property
    def end_epoch(self) -> int:
        """The last epoch to train."""
        return self.link.end_epoch if self.link else self.epochs

    @property
    def cell(self) -> str:
        return format_cell_name(self.student, self.arm)

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits derived from phase, cell, seed, epochs and configuration."""
        return digest(self.phase, self.cell, self.seed, self.epochs, self.config)[:12]


def format_cell_name(student: str, arm: str) -> str:
    """Return the name of a cell, a student under an arm; a preparation has no student and is named as its arm."""
    return f"{student} / {arm}" if student else arm


@dataclass(frozen=True)
class Progress:
    """The position of a step in a run: `epoch` of `epochs` are complete, and the share `within` of the current one."""

    epoch: int
    epochs: int
    within: float = 0.0

    @property
    def fraction(self) -> float:
        """The completed share of the run, in [0, 1)."""
        return (self.epoch + self.within) / self.epochs


class EpochResult(TypedDict):
    """The result of one epoch of a trial."""

    epoch: int
    """Counted from 1."""
    metrics: dict[str, float]
    """Values by `split/name`, with the names that the task's `metrics` declares."""
    schedules: dict[str, float]
    """The value of every scheduled quantity in this epoch: learning rate, temperature, pruning share."""
    seconds: float
    """Duration of training and evaluation of this epoch."""


@dataclass(frozen=True)
class TrialContext:
    """A trial as a worker receives it, with the objects that its configuration describes."""

    trial: Trial
    task: Task
    student: Any
    loss: Any
    recipe: Any
    """How the student is trained. Student, loss and recipe contain no domains; all three are None in a preparation."""
    checkpoint: Path
    """The trial's own folder. A restarted trial finds here the files of its earlier attempts."""
    storage: Path
    """The storage root that all studies share; trained teachers lie below it."""
    device: str
    recorded_epochs: int
    """Number of epochs on record; the trial yields results from the next epoch on."""
    train_on: Split
    validate: bool
    """Evaluate on the validation split after each epoch."""
    test: bool
    """Evaluate on the test split, once, after the last epoch."""
    rank: int = 0
    """Rank of this worker among the trial's workers. Rank 0 alone writes files, and its results are recorded."""
    workers: int = 1
    """Number of workers that train this trial together; their contexts differ in `rank` alone."""
    gpus: float = 0.0
    """GPUs of this worker: a fraction of one, a whole number, or 0 for none."""

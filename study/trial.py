"""What a trial is, and the two protocols between the engine and the code it trains.

The engine (study/) calls a task; a task is torch code, a simulation, anything that yields rows. Nothing here
imports torch or ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from study.identity import digest

Direction = Literal["max", "min"]
Phase = Literal["prepare", "search", "confirm"]
Split = Literal["train", "val", "train+val", "test"]
SPLITS: tuple[Split, ...] = ("train", "train+val")
"""What students are trained on: in the search, and in confirm unless validation stays apart there."""


class TrialState(StrEnum):
    """Where a trial stands. Only the last row of a trial counts."""

    RUNNING = "RUNNING"
    """Handed to a worker. In a study that nobody drives any more: will be resumed."""
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    """Stopped by the study's stopping rule, which `reason` quotes."""
    FAILED = "FAILED"
    """Its own fault: an exception, a loss that is not finite, a worker lost too often. `reason` says which."""
    INTERRUPTED = "INTERRUPTED"
    """Not its fault: Ctrl-C or an exhausted budget. Will be resumed from its checkpoint."""
    SUPERSEDED = "SUPERSEDED"
    """Confirmed a configuration that a longer search has since replaced. Counts for nothing any more."""

    @property
    def ended(self) -> bool:
        return self not in (TrialState.RUNNING, TrialState.INTERRUPTED)


@dataclass(frozen=True)
class Trial:
    """One training run, fully determined: the same fields give the same id, and an id is trained once."""

    phase: Phase
    student: str
    arm: str
    number: int
    """Position within its cell and phase, from 0. In confirm, equal numbers of all arms share their seed."""
    seed: int
    epochs: int
    params: Mapping[str, Any]
    """The values the search proposed, by domain name; empty where nothing is searched."""
    config: Any = field(repr=False)
    """The description of everything that decides the outcome: task, student, resolved loss, splits."""

    @property
    def cell(self) -> str:
        return cell_name(self.student, self.arm)

    @cached_property
    def id(self) -> str:
        return digest(self.phase, self.cell, self.seed, self.epochs, self.config)[:12]


def cell_name(student: str, arm: str) -> str:
    """The name of a cell, one row of a comparison: a student under an arm; of a preparation, which has no student."""
    return f"{student} / {arm}" if student else arm


class EpochResult(TypedDict):
    """What a trial yields at the end of each epoch."""

    epoch: int
    """Counted from 1."""
    metrics: dict[str, float]
    """By `split/name`; names as the task's `metrics` declares them."""
    schedules: dict[str, float]
    """What every scheduled number stood at in this epoch: learning rate, temperature, pruning share."""
    seconds: float
    """Spent on training and evaluating this epoch."""


@dataclass(frozen=True)
class TrialContext:
    """A trial on its way to a worker, with the objects its configuration describes."""

    trial: Trial
    task: Task
    student: Any
    loss: Any
    checkpoint: Path
    """This trial's own folder. Whoever starts the trial again finds here what it left behind."""
    storage: Path
    """Shared by all studies: trained teachers live below it."""
    device: str
    recorded_epochs: int
    """Epochs whose rows are already on record; the trial yields rows from the next one on."""
    train_on: Split
    validate: bool
    """Evaluate on validation after each epoch."""
    test: bool
    """Read the test split, once, after the last epoch."""
    rank: int = 0
    """Which of the trial's workers does this job, from 0. The rows of the first one count, and it alone writes."""
    workers: int = 1
    """How many train this trial together, each of them with the same job but for `rank`."""
    rendezvous_address: str = ""
    """HOST:PORT where several workers find each other."""
    gpus: float = 0.0
    """What this worker may use: a share of one GPU, whole ones, or none."""


@dataclass(frozen=True)
class Preparation:
    """Work that trials wait for: training a teacher, storing its outputs. Runs as a trial of phase `prepare`."""

    name: str
    epochs: int
    config: Any
    stage: int = 0
    """Preparations of one stage run side by side; a stage starts when the one before it is done."""
    note: str = ""
    """What the user is told before it starts: its size, what is done again and why."""


@dataclass(frozen=True)
class Plan:
    """All the trainings a study may do: from this follows which views its trials will draw."""

    runs: tuple[tuple[int, Split], ...]
    """The seed of each, and what it trains on."""
    epochs: int


@dataclass(frozen=True)
class TrialProfile:
    """What a short training took, in a process that has done nothing but rehearse."""

    epoch_seconds: float
    """Of a whole epoch, from the batches that were trained and evaluated."""
    epoch_batches: int
    """Of its training."""
    peak_bytes: int
    """The most that the process has had of its device's memory so far, for all that it rehearsed."""
    overhead_bytes: int
    """What a process takes of that memory beside, whatever it trains."""
    device_bytes: int
    """All there is of it."""


class TrialNote(UserWarning):
    """Something a trial's task tells the user, who sees it in a line: what was damaged, what it does instead."""


class Task(Protocol):
    """What the engine asks of a task. trainables/task.py adds what the torch training loop asks."""

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """Every metric a row may hold, by `split/name`, and which way is better."""

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        """Look at data, weights and students before anything starts; students will train on these splits.

        Returns what identifies the inputs, for the record: content hashes, sizes, names.
        Raises InputError naming what is missing or wrong, where it was looked for and how to get it.
        """

    def shortened(self, share: float) -> Task:
        """This task with its preparations cut to a share of their epochs, for a study that is tried out in short."""

    def with_precision(self, precision: str) -> Task:
        """This task with students trained in "float32" or "bfloat16"."""

    def with_live_teacher(self) -> Task:
        """This task with its teacher asked anew at every step instead of stored."""

    def artifacts(self) -> tuple[str, ...]:
        """What its trials share, as folders below the storage: a trained teacher, its outputs.

        A storage that lies elsewhere is copied to each node that needs them. No file in them is changed once written.
        """

    def sound(self, path: Path) -> bool:
        """Whether a file of these folders is what its checksum says; True for one that has none."""

    def preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        """What must still be prepared before trials that need the teacher can start.

        Raises InputError if there is no room for it.
        """

    def prepare(self, job: TrialContext) -> Iterator[EpochResult]:
        """Do the preparation named by `job.trial.arm`; a row an epoch."""

    def train(self, job: TrialContext) -> Iterator[EpochResult]:
        """Train one student; a row an epoch. Resumes from `job.checkpoint` if something lies there."""

    def rehearse(self, job: TrialContext, batches: int) -> TrialProfile:
        """Train so many batches of a student, twice, beside a teacher that has not been trained; the second is timed.

        A job without a student is the teacher's own training.
        Raises MemoryError if the device's memory, or the job's share of it, does not suffice.
        """

    def summary(self, students: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        """What the record says of the nets: `teacher` (None if not there yet) and `students` by name."""

    def cost(self, student: Any, storage: Path) -> dict[str, Any]:
        """What one net takes to run, for the record: `macs`, `latency_seconds` and so on; of None, the teacher.

        Measured here and now, within seconds; empty for what is no net, and for a teacher that is not there.
        """


class Method(Protocol):
    """What the engine asks of an arm's loss: a frozen dataclass that says whether it needs the teacher."""

    @property
    def needs_teacher(self) -> bool: ...

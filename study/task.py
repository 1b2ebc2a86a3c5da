"""The protocols between the engine and the code it trains: a task, and the method that an arm trains with.

The engine (study/) calls a task; a task is torch code, a simulation, anything that yields one EpochResult per epoch.
Nothing here imports torch or ray. trainables/tasks/base.py holds the base class of tasks for the torch training loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from study.identity import IF_SET
from study.trial import Direction, EpochResult, Split, TrialContext

SPLITS: tuple[Split, ...] = ("train", "train+val")
"""The splits students train on: "train" in the search, "train+val" in confirm unless `confirm_on` is "train"."""


@dataclass(frozen=True)
class Metric:
    """A metric of a task: how to compare its values and how to write them."""

    name: str
    """The bare name, such as "accuracy"; a recorded metric is called `split/name`."""
    direction: Direction
    """The better direction."""
    unit: str = ""
    """Written after the value. A metric in "%" is recorded as a fraction, and written in percent, its differences in
    percentage points."""
    digits: int = 4
    """Decimal places of a written value."""
    label: str = ""
    """The noun to write where it is not the name, such as "MAE" for "mae"."""


PARAMETERS, MACS = "student/parameters", "student/macs"
LATENCY, INT8_LATENCY = "student/latency_ms", "student/int8_latency_ms"

COSTS: Mapping[str, Metric] = {
    PARAMETERS: Metric("parameters", "min", digits=0),
    MACS: Metric("macs", "min", digits=0, label="MACs"),
    LATENCY: Metric("latency_ms", "min", "ms", 3, "latency"),
    INT8_LATENCY: Metric("int8_latency_ms", "min", "ms", 3, "int8 latency"),
}
"""Costs of a trial's student, which a search may decide: it can minimise them or keep them below a limit."""

EXACT_COSTS = (PARAMETERS, MACS)
"""The costs that follow from the student alone; the others are measured, and differ from measurement to measurement."""


@dataclass(frozen=True)
class Preparation:
    """Work that trials wait for: training a teacher, storing its outputs. Runs as a trial of phase "prepare"."""

    name: str
    epochs: int
    config: Any
    stage: int = 0
    """Preparations of one stage run concurrently; a stage starts when the previous one is done."""
    note: str = ""
    """A line shown to the user before it starts: its size, what has to be repeated and why."""


@dataclass(frozen=True)
class Plan:
    """All trainings that a study may run; they determine which augmented views its trials will read."""

    runs: tuple[tuple[int, Split], ...]
    """The seed and the training split of each run."""
    epochs: int
    stored_runs: tuple[tuple[int, Split], ...] | None = field(default=None, metadata=IF_SET)
    """Those of the runs that read stored teacher outputs; None for all of them."""


@dataclass(frozen=True)
class TrialProfile:
    """Time and memory of a short training run, measured in a process that has done nothing but profile."""

    epoch_seconds: float
    """Duration of a full epoch, extrapolated from the batches that were trained and evaluated."""
    epoch_batches: int
    """Training batches in a full epoch."""
    peak_bytes: int
    """Peak device memory of the process so far, over all profiles it has measured."""
    overhead_bytes: int
    """Device memory that the process occupies in addition, whatever it trains (context, libraries)."""
    device_bytes: int
    """Total memory of the device."""


class TrialNote(UserWarning):
    """A one-line message from a trial to the user, such as which file was damaged and what replaces it."""


class Task(Protocol):
    """The interface that the engine requires of a task."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric that a result may contain, by `split/name`."""

    @property
    def prediction(self) -> str:
        """The output of a model, in one sentence for the record; empty where there is none."""

    @property
    def recipe(self) -> Any:
        """The training of students, unless an arm has a recipe of its own; it may contain domains. None if the task has
        no recipe."""

    def with_recipe(self, recipe: Any) -> Task:
        """Return this task with another recipe of students, on which no preparation may depend.

        Raises InputError for a task without a recipe.
        """

    def make_schedule(self, values: Sequence[float]) -> Any:
        """Return the schedule with these values, each for an equal share of a run: the result of a population's search.

        Raises InputError for a task whose losses have no schedules.
        """

    def check(
        self,
        students: tuple[Any, ...],
        losses: tuple[Any, ...],
        storage: Path,
        trained_on: tuple[Split, ...] = SPLITS,
        recipes: tuple[Any, ...] | None = None,
    ) -> dict[str, Any]:
        """Check data, weights, students and losses before anything starts, for training on the splits `trained_on`.

        Students, losses and `recipes`, by default the task's own, are free of domains.
        Returns what identifies the inputs, for the record: content hashes, sizes, names.
        Raises InputError naming what is missing or wrong, where it was looked for and how to get it.
        """

    def with_shorter_preparations(self, share: float) -> Task:
        """Return this task with its preparations cut to a share of their epochs, for a short trial run of a study."""

    def with_precision(self, precision: str) -> Task:
        """Return this task with students trained in "float32" or "bfloat16"."""

    def with_live_teacher(self) -> Task:
        """Return this task with the teacher computed at every step instead of read from stored outputs."""

    def with_teacher_file(self, path: Path) -> Task:
        """Return this task with the teacher read from a file. Raises InputError for a task without a teacher's file."""

    def list_artifacts(self) -> tuple[str, ...]:
        """Return the folders below the storage that its trials share: the trained teacher, its stored outputs.

        Remote storage is copied to each node that needs them. No file in them changes once it is written.
        """

    def is_intact(self, path: Path) -> bool:
        """Return whether a file of these folders matches its checksum; True for a file that has none."""

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        """Return what is left to prepare before trials that need the teacher can start.

        Raises InputError if the storage has not enough free space.
        """

    def prepare(self, context: TrialContext) -> Iterator[EpochResult]:
        """Run the preparation named by `context.trial.arm`; yields one result per epoch."""

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        """Train one student; yields one result per epoch. Resumes from a checkpoint found in `context.checkpoint`."""

    def profile(self, context: TrialContext, batches: int) -> TrialProfile:
        """Train a student for `batches` batches twice, with an untrained teacher, and time the second pass.

        A context without a student profiles the teacher's own training.
        Raises MemoryError if the device's memory, or this worker's share of it, does not suffice.
        """

    def describe_models(self, students: Mapping[str, Any], storage: Path) -> dict[str, Any]:
        """Return the record's description of the models: `teacher` (None before it is trained), `students` by key."""

    @property
    def costs(self) -> Collection[str]:
        """The names among COSTS that `measure_student` knows; none where students are no networks."""

    def measure_student(self, student: Any, names: Collection[str]) -> dict[str, float]:
        """Return these costs of a student, measured on this machine within seconds.

        Raises InputError for a package that is missing.
        """

    def measure_cost(self, student: Any, storage: Path) -> dict[str, Any]:
        """Return the inference cost of a student, or of the teacher for None: `macs`, `latency_seconds` and so on.

        Measured on this machine within seconds; empty for a student that is no network and for a missing teacher.
        """


class DistillationMethod(Protocol):
    """The interface that the engine requires of an arm's loss: a frozen dataclass with a flag `needs_teacher`."""

    @property
    def needs_teacher(self) -> bool: ...

    # A loss that reads inner features of the nets also has `reads_features: ClassVar[bool] = True`.


def reads_features(loss: DistillationMethod) -> bool:
    """Return whether a loss reads the teacher's inner features, which stored outputs do not have."""
    return bool(getattr(loss, "reads_features", False))


@runtime_checkable
class SingleWorkerMethod(Protocol):
    """A loss, or an object in one of its fields, that may need whole batches in one process."""

    def single_worker_reason(self) -> str:
        """Return why several workers cannot share a batch, as a clause for an error message; empty if they can."""


@runtime_checkable
class StatefulMethod(Protocol):
    """A loss that owns trained parts, such as a discriminator.

    It needs a single worker unless it defines `single_worker_reason`.
    """

    def new_state(self, device: str) -> Any:
        """Return the state of the loss in one training (trainables/losses/state.py)."""

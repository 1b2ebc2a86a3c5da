"""The definition of a task: the members that a subclass writes or overrides, and those that follow from them.

Tasks derive from `DistillationTask` (base.py), which trains and prepares for the engine what is defined here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.identity import describe, digest, is_described
from study.task import Metric
from study.trial import Split, TrialContext
from trainables.losses.reconstruction import get_reconstruction
from trainables.models.hooks import TappedOutput
from trainables.task import (
    Batch,
    Dataset,
    DistillationLoss,
    Examples,
    LoadedT,
    Meters,
    ModelSpec,
    Outputs,
    Panel,
    without_pretrained,
)
from trainables.teacher.weights import Teacher, load_weights
from trainables.training.recipe import Recipe
from trainables.training.views import Views

Table = TypeVar("Table")


@dataclass(frozen=True)
class TaskDefinition(ABC, Generic[LoadedT]):
    """The members of a task; `DistillationTask` lists those to write."""

    data: Dataset[LoadedT]
    teacher: Teacher
    recipe: Recipe
    """How students are trained, if their arm has no recipe of its own. Any field may be a domain; the teacher's recipe
    has none."""
    views: Views
    """The augmentation, of students and teacher alike."""
    teacher_store: bool = field(default=True, kw_only=True)
    """Whether teacher outputs are stored for all views that trials draw, or computed at every step.

    Without effect where `output_bytes` is None.
    """

    evaluation_batch_sizes: ClassVar[Mapping[str, int]] = {"cpu": 8, "cuda": 32}
    """Samples evaluated at once, by device; 1 where images differ in size."""

    further_distances: ClassVar[Sequence[Metric]] = ()
    """Metrics of the distance to the teacher in addition to `teacher_distance`, recorded on the training split."""

    dataset_type: ClassVar[type] = object
    """The class of which the data's `load` returns an instance."""
    allowed_data: ClassVar[str] = ""
    """The classes of data that load such a set, for the message about others."""

    # -- what a task must define ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def scores(self) -> Sequence[Metric]:
        """The metrics that `meters` measures; the first one on validation selects the best epoch."""

    @property
    @abstractmethod
    def prediction(self) -> str:
        """The meaning of `Outputs.prediction` in one sentence, for the record: "class logits (B, K)"."""

    @abstractmethod
    def build(self, model: ModelSpec) -> nn.Module:
        """Return the net of these settings, for this task's data."""

    @abstractmethod
    def load_examples(self, split: Split, device: str) -> Examples:
        """Return a split on a device. Called once a process, split and device."""

    @abstractmethod
    def positions(self, split: Split) -> Tensor:
        """Return a split's positions (N,) int64 in the pool, which is "train+val"; "test" has positions of its own."""

    @abstractmethod
    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss against the targets, a scalar () with gradient."""

    @abstractmethod
    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return how far the student is from the teacher, a scalar (): the same measure for all arms."""

    @abstractmethod
    def meters(self, device: str, split: Split) -> Meters:
        """Return fresh meters of the scores; of "train" those of `train_scores`, which are updated at every step."""

    # -- what a task may change ----------------------------------------------------------------------------------------

    @property
    def train_scores(self) -> Sequence[Metric]:
        """The scores measured on training batches too; leave out what is costly."""
        return self.scores

    @property
    def output_bytes(self) -> int | None:
        """Size of one stored teacher output, float16; None if it is too large to store, or losses read features."""
        return None

    def adapt_to(self, loss: DistillationLoss) -> Self:
        """Return the task under which an arm of this loss is trained, of this task's data, nets and metrics.

        Raises InputError for a loss with a task loss of its own, which super-resolution alone has.
        """
        if get_reconstruction(loss) is not None:
            raise InputError(f"{type(loss).__name__} has a reconstruction, which {type(self).__name__} does not know")
        return self

    def measure_distances(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the `teacher_distance` and the M `further_distances`, in their order: (1 + M,)."""
        return self.teacher_distance(student, teacher)[None]

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        """Return the net's outputs for a batch: its prediction, and the features of a net with taps."""
        returned = net(batch.inputs)
        return Outputs(*returned) if isinstance(returned, TappedOutput) else Outputs(returned)

    def sample_batch(self) -> Batch:
        """Return a batch on which `check` tries nets and losses; two samples, so that a stray `squeeze()` shows."""
        return self.examples("val", "cpu").batch(torch.arange(2), torch.zeros(2, dtype=torch.int64))

    def predict_classes(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return predicted and true classes of a batch, int64 of one shape; None where predictions are no classes.

        Teachers from files are checked by them for labels in another order (teacher/label_order.py).
        """
        return None

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        """Return the pictures of a batch of one test example; none where there is nothing to look at."""
        return ()

    def get_table(self, name: str, kind: type[Table]) -> Table:
        """Return what the data's settings say of targets, such as their `class_table`.

        Raises InputError for data without it.
        """
        table = getattr(self.data, name, None)
        if not isinstance(table, kind):
            raise InputError(
                f"{type(self).__name__} takes no {type(self.data).__name__}, which has no {name}; allowed are "
                f"{self.allowed_data}, and data of your own with one"
            )
        return table

    def data_record(self) -> dict[str, Any]:
        """Return further facts on the data for study.json: classes, metrics that could not be measured.

        A `note` is added to that of the data.
        """
        return {}

    def check_data(self, students: tuple[ModelSpec, ...], losses: tuple[DistillationLoss, ...]) -> None:
        """Check the data, and what students and losses need, before any net is tried; by default nothing.

        Raises InputError naming what is wrong.
        """

    def build_for_checks(self, model: ModelSpec) -> nn.Module:
        """Return a net to try or measure, with noise where `teacher_net` fills in what is learned beforehand."""
        return self.build(model)

    def teacher_net(self, context: TrialContext) -> nn.Module:
        """Return the net that the teacher's training starts from."""
        return self.build(self.teacher.model)

    def load_teacher_file(self, path: Path) -> nn.Module:
        """Return the teacher with the weights in a file. Raises InputError for a file that does not fit."""
        return load_weights(self.build(without_pretrained(self.teacher.model)), path)

    # -- for the training loop -----------------------------------------------------------------------------------------

    @property
    def loaded(self) -> LoadedT:
        """The data, read once a process. Raises InputError for data of another task."""
        loaded: LoadedT = load_dataset(self.data)
        if not isinstance(loaded, self.dataset_type):
            raise InputError(
                f"{type(self).__name__} takes no {type(self.data).__name__}; allowed are {self.allowed_data}, and data "
                f"of your own whose load() returns a {self.dataset_type.__name__}"
            )
        return loaded

    def examples(self, split: Split, device: str) -> Examples:
        """Return a split on a device, made once a process."""
        return _load_examples(self, split, device)

    def evaluation_batch(self, device: str) -> int:
        return self.evaluation_batch_sizes[device]

    @property
    def selection_metric(self) -> str:
        """The validation metric that selects the best epoch."""
        return f"val/{self.scores[0].name}"

    @property
    def pool_key(self) -> str:
        """The identity of the inputs of the pool: content, order and normalisation."""
        return digest(self.loaded.fingerprint, self.loaded.mean, self.loaded.std)

    @property
    def teacher_key(self) -> str:
        """The identity of the teacher's weights and scores: all settings but those of the students' training."""
        others = ("data", "teacher", "recipe", "teacher_store")
        own = [item.name for item in fields(self) if item.name not in others and is_described(item, self)]
        settings = {name: describe(getattr(self, name)) for name in own}
        return self.teacher.compute_key([self.pool_key, settings])

    @property
    def stored_output_bytes(self) -> int | None:
        """Size of one stored teacher output; None if the teacher is run at every step."""
        return self.output_bytes if self.teacher_store else None


@lru_cache(maxsize=2)
def load_dataset(data: Dataset[Any]) -> Any:
    """Return the loaded data set. Kept for the life of a process: workers are reused for many trials."""
    return data.load()


@lru_cache(maxsize=8)
def _load_examples(task: TaskDefinition[Any], split: Split, device: str) -> Examples:
    return task.load_examples(split, device)

"""The vocabulary of tasks, losses and the training loop: Batch, Outputs, DistillationLoss, ModelSpec, Dataset.

Shape letters, here and everywhere: B samples in a batch, N samples in a split, K classes, C channels, H × W pixels.
Tasks derive from `DistillationTask` (trainables/tasks/base.py); the engine's own interface is `study.task.Task`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from study.task import COSTS, PARAMETERS, Metric
from trainables.training.settings import FloatOrSchedule, Progress

IGNORED = 255
"""The label of pixels without a class: they count in no loss on labels, and in no score."""


@dataclass(frozen=True)
class Batch:
    """One batch on the trial's device, augmented."""

    inputs: Tensor
    """(B, C, H, W) float32, normalised."""
    targets: Any
    """The truth: (B,) int64 classes, (B, H, W) int64 labels, or what else the task's loss compares with."""
    samples: Tensor
    """(B,) int64 positions in the split."""
    views: Tensor
    """(B,) int64 numbers of the augmented views; 0 is the untouched image."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a net for a batch."""

    prediction: Tensor
    """Logits (B, K) or (B, K, H, W), a density map (B, 1, H, W), an image (B, 3, H, W): see the task's `prediction`."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Inner activations by name, for losses that compare them."""
    samples: Tensor | None = None
    """(B,) int64 positions in the training split, which the training loop gives to a student's outputs, for losses that
    keep a memory of samples."""


LAST = "last"
"""The name in `Outputs.features` of the features that losses compare: the last ones before the prediction."""


@dataclass(frozen=True)
class Panel:
    """One picture of one example, for the report."""

    name: str
    """The subject: "input", "labels", "density"."""
    kind: Literal["image", "labels", "map"]
    values: Tensor
    """An image (3, H, W) uint8; labels (H, W) uint8; a map (H, W) of numbers."""
    caption: str = ""
    """A line below the picture, such as the count of a density map."""
    given: bool = False
    """Whether the picture belongs to the example, the same for every net: an input, the truth."""
    scale: str = ""
    """The quantity that a map's colours stand for. Maps of one scale share their range within an example."""
    classes: tuple[str, ...] = ()
    """The names of labels."""


class Examples(Protocol):
    """One split, resident on the device or memory-mapped, that forms batches.

    Examples that read their indices on the host define `index_device = "cpu"`, so that no batch waits for the device
    to send them. Those that read slowly define `prefetch`.
    """

    def __len__(self) -> int: ...

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        """Return the batch of these samples (B,) int64 at these views (B,) int64."""


def index_device(examples: Examples, device: str) -> str:
    """Return where samples and views are kept for these examples: the trial's device, unless they define another."""
    return getattr(examples, "index_device", None) or device


def prefetch(examples: Examples, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Let examples prepare batches while others are in use: samples and views, (B,) each, of the next calls of `batch`.

    Examples that do so define a method `prefetch(batches)`; others are left alone.
    """
    if hasattr(examples, "prefetch"):
        examples.prefetch(batches)


class LoadedData(Protocol):
    """A data set in memory or memory-mapped, as `Dataset.load` returns it."""

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str:
        """A remark for the record, such as that training images are missing; empty where there is none."""

    @property
    def complete(self) -> bool:
        """True if no image of the published set is missing; published figures are shown for complete sets only."""

    @property
    def fingerprint(self) -> str:
        """A digest of all inputs and targets, whatever files they came from."""

    # Data that also have `hashes: tuple[ImageHashes, ImageHashes]`, of the pool's and of the test images, are searched
    # for images that occur in several splits (trainables/data/arrays/duplicates.py).

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, of pixels scaled to [0, 1], for normalisation."""

    @property
    def std(self) -> tuple[float, ...]: ...


LoadedT = TypeVar("LoadedT", bound=LoadedData)
LoadedT_co = TypeVar("LoadedT_co", bound=LoadedData, covariant=True)


class Dataset(Protocol[LoadedT_co]):
    """The settings of a data set: a frozen dataclass, see trainables/data/."""

    def load(self) -> LoadedT_co:
        """Read the data. Raises InputError if something is missing or damaged."""

    def __hash__(self) -> int: ...


class ModelSpec(Protocol):
    """The settings of a net: a frozen dataclass, see trainables/models/."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def build(self) -> Callable[..., nn.Module]:
        """A method that returns the net, given what the task knows of data: channels, classes or scale."""


class DistillationLoss(Protocol):
    """The loss of an arm: total = task_weight · task_loss + self(student, teacher, targets, progress).

    A frozen dataclass whose fields are numbers, domains or schedules, so that any of them can be searched. One that
    compares classes has `compares_classes: ClassVar[bool] = True`, for tasks without classes to refuse it; one
    that reads the class of each sample has `reads_labels`, for mixed images.
    """

    @property
    def needs_teacher(self) -> bool: ...

    @property
    def task_weight(self) -> FloatOrSchedule: ...

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss of a batch, a scalar ()."""


class FrozenTeacher(Protocol):
    """A source of teacher outputs: the net itself, or a store of its outputs."""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        """Return the function from an epoch's batches to teacher outputs; `views` (N,) are its samples' views."""


class _NoTeacher:
    """The teacher of losses that do not need one: its outputs are empty."""

    def begin_epoch(self, views: Tensor) -> Callable[[Batch], Outputs]:
        return lambda batch: Outputs(torch.empty(0, device=batch.inputs.device))


NO_TEACHER = _NoTeacher()


class Meters(Protocol):
    """The metrics of one evaluation of a split, accumulated batch by batch."""

    def update(self, outputs: Outputs, batch: Batch) -> None: ...

    def compute(self) -> dict[str, float]:
        """Return the metrics by bare name (`accuracy`), over the samples of all workers of the trial.

        Each worker has updated its own meters with its own samples; torchmetrics' meters combine them here.
        """


Spec = TypeVar("Spec", bound=ModelSpec)


def without_pretrained(model: Spec) -> Spec:
    """Return the settings without initial weights, for a net whose weights are loaded or do not matter.

    A model with such weights has a flag `imagenet`, or a method `without_weights`.
    """
    if hasattr(model, "without_weights"):
        return model.without_weights()  # type: ignore[no-any-return]
    return replace(model, imagenet=False) if getattr(model, "imagenet", False) else model


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of a net."""
    return sum(parameter.numel() for parameter in net.parameters())


LOSS_METRICS = (
    Metric("loss", "min"),
    Metric("task_loss", "min"),
    Metric("distill_loss", "min"),
    Metric("teacher_distance", "min", label="distance to the teacher"),
)
"""The metrics that the training loop computes for every task, on the training split."""


def name_metrics(
    scores: Sequence[Metric], train_scores: Sequence[Metric], further_distances: Sequence[Metric] = ()
) -> dict[str, Metric]:
    """Return every metric of a task with these scores by `split/name`, with those of the training loop."""
    by_split = {"train": (*LOSS_METRICS, *further_distances, *train_scores)}
    by_split |= dict.fromkeys(("val", "test", "test_at_best_val"), tuple(scores))
    names = {f"{split}/{metric.name}": metric for split, metrics in by_split.items() for metric in metrics}
    names[PARAMETERS] = COSTS[PARAMETERS]
    return names | {"best_val_epoch": Metric("best_val_epoch", "min")}

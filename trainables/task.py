"""The words that all tasks and losses share: Examples, Batch, Outputs, Progress, and the two protocols.

Shape letters, here and everywhere: B samples in a batch, N samples in a split, K classes, C channels, H × W
pixels. A task that the training loop serves implements `TrainableTask`; the engine's own view of a task is
`study.task.Task`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from study.trial import Direction, Split, TrialContext
from trainables.training.schedules import Progress


@dataclass(frozen=True)
class Batch:
    """One batch, views applied, on the trial's device."""

    inputs: Tensor
    """(B, C, H, W) float32, normalised."""
    targets: Any
    """What the task learns: (B,) int64 classes, (B, H, W) int64 labels, an image, a density map."""
    samples: Tensor
    """(B,) int64 positions in the split."""
    views: Tensor
    """(B,) int64 numbers of the views applied; 0 is the untouched image."""


@dataclass(frozen=True)
class Outputs:
    """What a net returns for a batch."""

    prediction: Tensor
    """Logits (B, K) or (B, K, H, W), a density map (B, 1, H, W), an image (B, 3, H, W): the task says which."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Inner activations by name, for losses that compare them."""


@dataclass(frozen=True)
class Panel:
    """One picture of one example."""

    name: str
    """What it shows: "input", "labels", "density"."""
    kind: Literal["image", "labels", "map"]
    values: Tensor
    """An image (3, H, W) uint8; labels (H, W) uint8; a map (H, W) of numbers."""
    caption: str = ""
    """What is told below it, such as the count of a density map."""
    given: bool = False
    """Whether it belongs to the example itself, the same for every net: an input, the truth."""
    scale: str = ""
    """What a map's colours stand for. Those of one scale share their range within an example."""
    classes: tuple[str, ...] = ()
    """The names of labels."""


class Examples(Protocol):
    """One split, resident or memory-mapped, that forms batches on a device."""

    def __len__(self) -> int: ...

    def batch(self, samples: Tensor, views: Tensor) -> Batch: ...


class DistillationLoss(Protocol):
    """What an arm adds to the task loss: total = task_weight · task_loss + self(student, teacher, targets, progress).

    A frozen dataclass. Its fields are numbers, domains or schedules, so that any of them can be searched.
    """

    @property
    def needs_teacher(self) -> bool: ...

    @property
    def task_weight(self) -> Any: ...

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor: ...


class Views(Protocol):
    """A finite, enumerable set of augmentations."""

    @property
    def count(self) -> int: ...

    def draw(self, seed: int, epoch: int, samples: Tensor) -> Tensor:
        """The view of each sample, (B,) int64: a pure function of seed, epoch and sample."""


class Meters(Protocol):
    """Accumulates a split's metrics; one instance per evaluation."""

    def update(self, outputs: Outputs, batch: Batch) -> None: ...

    def compute(self) -> dict[str, float]:
        """By bare name (`accuracy`); the loop puts the split before it.

        Over all workers of a trial, each of which has seen its own samples: torchmetrics' own meters do that here.
        """


class TrainableTask(Protocol):
    """What the training loop (trainables/distill.py) asks of a task."""

    @property
    def metrics(self) -> Mapping[str, Direction]: ...

    @property
    def selection_metric(self) -> str:
        """The validation metric whose best epoch is remembered where validation is kept apart."""

    @property
    def views(self) -> Views: ...

    @property
    def recipe(self) -> Any:
        """The students' `trainables.training.recipe.Recipe`."""

    @property
    def teacher(self) -> Any:
        """A `trainables.teacher.weights.Teacher`."""

    @property
    def teacher_key(self) -> str:
        """What identifies the teacher's weights."""

    @property
    def pool_key(self) -> str:
        """What identifies the inputs of the pool: their content, order and normalisation."""

    @property
    def stored_output_bytes(self) -> int | None:
        """The size of one stored teacher output; None if outputs are not stored and the teacher is asked live."""

    def __hash__(self) -> int: ...

    def positions(self, split: Split) -> Tensor:
        """Where a training split's samples lie in the pool, which is "train+val": (N,) int64."""

    def build(self, model: Any) -> nn.Module: ...

    def teacher_net(self, job: TrialContext) -> nn.Module:
        """What the teacher's training starts from."""

    def examples(self, split: Split, device: str) -> Examples: ...

    def evaluation_batch(self, device: str) -> int:
        """How many samples are evaluated at once; 1 where images differ in size."""

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs: ...

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor: ...

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """How far the student is from its teacher, one number: the same measure for all arms, whatever they learn."""

    def meters(self, device: str, split: Split) -> Meters:
        """Of "train" only what costs little: it is measured at every step."""

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        """What there is to see of a batch of one test example; nothing where pictures tell nothing."""


def without_pretrained(model: Any) -> Any:
    """The model without weights of ImageNet, for a net whose own weights follow: none need to be there for it."""
    return replace(model, imagenet=False) if getattr(model, "imagenet", False) else model


def count_parameters(net: nn.Module) -> int:
    """How many parameters a net has."""
    return sum(parameter.numel() for parameter in net.parameters())

"""Image classification: the CIFAR protocol, on CIFAR-10, CIFAR-100 and scikit-learn's digits.

Images stay on the device as uint8; crops and flips are drawn and applied there, batch by batch. There is no
DataLoader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import describe, digest
from study.task import SPLITS
from study.trial import Direction, Split
from trainables.data.arrays.splits import ImageSet, stratified_split
from trainables.losses.common.logits import kl_divergence
from trainables.task import Batch, DistillationLoss, Outputs, Panel
from trainables.tasks.base import Taught
from trainables.tasks.preflight import check_loss
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe
from trainables.training.views import CropFlip, normalise

EVALUATION_BATCH = {"cpu": 64, "cuda": 1024}
"""By device: a core's cache is small, a GPU wants to be filled."""


class ImageData(Protocol):
    """A data set of labelled images, see trainables/data/."""

    def load(self) -> ImageSet: ...

    def __hash__(self) -> int: ...


class ImageNetSpec(Protocol):
    """A net for images by its settings, see trainables/models/."""

    @property
    def name(self) -> str: ...

    def build(self, channels: int, classes: int) -> nn.Module: ...


@dataclass(frozen=True)
class Classification(Taught):
    """Train students on labelled images, score by top-1 accuracy.

    `validation` is the share of the training images held out by `split_seed`, stratified by class. The study's seed
    does not move the split, so that a teacher serves all studies of one split.
    """

    data: ImageData
    teacher: Teacher
    recipe: Recipe = field(default_factory=Recipe)
    views: CropFlip = field(default_factory=lambda: CropFlip(padding=4, flip=True))
    validation: float = 0.1
    split_seed: int = 0
    teacher_store: bool = True
    """Whether the teacher's logits are stored for the views that trials draw, or computed anew at every step."""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise InputError(
                f"validation is {self.validation}; allowed is a share of the training images between 0 and 1"
            )

    # -- for the engine --------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Mapping[str, Direction]:
        return {
            "train/loss": "min",
            "train/task_loss": "min",
            "train/distill_loss": "min",
            "train/teacher_distance": "min",
            "train/accuracy": "max",
            "val/accuracy": "max",
            "test/accuracy": "max",
            "test_at_best_val/accuracy": "max",
            "best_val_epoch": "min",
        }

    @property
    def selection_metric(self) -> str:
        return "val/accuracy"

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        images, key = load(self.data), self.teacher_key
        sizes = {split: len(_indices(self, split)) for split in ("train", "val")}
        for student in students:
            self.build(student)
        for loss in losses:
            _probe(loss, images.classes)
        if self.teacher.weights is not None:
            teachers.load_weights(self.build(self.teacher.model), self.teacher.weights)
        return {
            "data": {
                "name": images.name,
                "note": images.note,
                "fingerprint": images.fingerprint,
                "classes": images.classes,
                "test": len(images.test_labels),
                **sizes,
            },
            "teacher": {"fingerprint": key},
        }

    # -- for the training loop -------------------------------------------------------------------------------------

    def examples(self, split: Split, device: str) -> ResidentImages:
        return _resident(self, split, device)

    def evaluation_batch(self, device: str) -> int:
        return EVALUATION_BATCH[device]

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        return Outputs(net(batch.inputs))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the untempered, unpruned logits."""
        return F.cross_entropy(outputs.prediction.float(), batch.targets)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """KL(teacher ‖ student) of the untempered probabilities, mean over the batch."""
        return kl_divergence(student.prediction.float(), teacher.prediction.float()).mean()

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        return ()  # an answer of one word is no picture

    def meters(self, device: str, split: Split) -> Accuracy:
        return Accuracy(load(self.data).classes, device)

    # -- nets ------------------------------------------------------------------------------------------------------

    def build(self, model: ImageNetSpec) -> nn.Module:
        images = load(self.data)
        return model.build(channels=images.train_images.shape[1], classes=images.classes)

    @property
    def teacher_key(self) -> str:
        inputs = [load(self.data).fingerprint, self.validation, self.split_seed, describe(self.views)]
        return self.teacher.compute_key(inputs)

    @property
    def pool_key(self) -> str:
        images = load(self.data)
        return digest(images.fingerprint, images.mean, images.std)

    @property
    def stored_output_bytes(self) -> int | None:
        return 2 * load(self.data).classes if self.teacher_store else None  # float16 logits

    def positions(self, split: Split) -> Tensor:
        return torch.from_numpy(_indices(self, split))


@dataclass(frozen=True)
class ResidentImages:
    """A split as one uint8 tensor on the device."""

    images: Tensor
    labels: Tensor
    views: CropFlip
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        pixels = self.views.apply(self.images[samples], views)
        inputs = normalise(pixels, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        return Batch(inputs, self.labels[samples], samples, views)


class Accuracy:
    """Top-1 accuracy over all samples (micro average), a share in [0, 1]."""

    def __init__(self, classes: int, device: str):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics.classification import MulticlassAccuracy

        self._meter = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._meter.update(outputs.prediction.detach().argmax(1), batch.targets)

    def compute(self) -> dict[str, float]:
        return {"accuracy": float(self._meter.compute())}


# Kept for the life of a process: a reused worker loads data and teacher once, not once a trial.


@lru_cache(maxsize=2)
def load(data: ImageData) -> ImageSet:
    return data.load()


@lru_cache(maxsize=8)
def _resident(task: Classification, split: Split, device: str) -> ResidentImages:
    images = load(task.data)
    pixels = images.test_images if split == "test" else images.train_images[_indices(task, split)]
    labels = images.test_labels if split == "test" else images.train_labels[_indices(task, split)]
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (images.mean, images.std))
    return ResidentImages(
        torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device), task.views, mean, std
    )


def _indices(task: Classification, split: str) -> np.ndarray[Any, Any]:
    labels = load(task.data).train_labels
    train, val = stratified_split(labels, task.validation, task.split_seed)
    return {"train": train, "val": val, "train+val": np.arange(len(labels))}[split]


def _probe(loss: DistillationLoss, classes: int) -> None:
    """Try a loss on a small batch of this many classes."""
    logits = torch.linspace(-1, 1, 2 * classes).view(2, classes)
    targets = torch.zeros(2, dtype=torch.int64)
    check_loss(loss, Outputs(logits), Outputs(logits.half()), targets, f"two samples of {classes} classes")

"""Image classification: the CIFAR protocol, on CIFAR-10, CIFAR-100 and scikit-learn's digits.

Images stay on the device as uint8; crops and flips are drawn and applied there, batch by batch. There is no
DataLoader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.describe import describe
from study.errors import InputError
from study.trial import Direction, Job, Preparation, Row
from trainables import checkpoint, teachers
from trainables.data.splits import ImageSet, stratified_split
from trainables.distill import TeacherOutputs, distill, evaluate, no_teacher
from trainables.losses.none import NoDistillation
from trainables.recipe import Recipe
from trainables.schedules import Progress
from trainables.task import Batch, DistillationLoss, Outputs, Split
from trainables.teachers import Teacher
from trainables.views import CropFlip, normalise


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
class Classification:
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
            "train/accuracy": "max",
            "val/accuracy": "max",
            "test/accuracy": "max",
            "test_at_best_val/accuracy": "max",
            "best_val_epoch": "min",
        }

    @property
    def selects_by(self) -> str:
        return "val/accuracy"

    def check(self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path) -> dict[str, Any]:
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

    def shortened(self, share: float) -> Classification:
        epochs = max(1, round(self.teacher.epochs * share))
        return replace(self, teacher=replace(self.teacher, epochs=epochs))

    def preparations(self, storage: Path) -> list[Preparation]:
        if teachers.kept(storage, self.teacher_key):
            return []
        config = {"teacher": describe(self.teacher), "key": self.teacher_key}
        return [Preparation("teacher", 1 if self.teacher.weights else self.teacher.epochs, config)]

    def prepare(self, job: Job) -> Iterator[Row]:
        """Train the teacher, or take it over from its file."""
        rows = self._imported(job) if self.teacher.weights else self._trained(job)
        for row in rows:
            if row["epoch"] == job.trial.epochs:
                self._keep_teacher(job, row)
            yield row

    def train(self, job: Job) -> Iterator[Row]:
        teacher = self._teacher(job) if job.loss.needs_teacher else no_teacher
        return distill(self, job, lambda: self.build(job.student), self.recipe, job.loss, teacher)

    def summary(self, students: tuple[Any, ...], storage: Path) -> dict[str, Any]:
        return {
            "teacher": teachers.kept(storage, self.teacher_key),
            "students": {student.name: {"parameters": parameters(self.build(student))} for student in students},
        }

    # -- for the training loop -------------------------------------------------------------------------------------

    def examples(self, split: Split, device: str) -> ResidentImages:
        return _resident(self, split, device)

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        return Outputs(net(batch.inputs))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the untempered, unpruned logits."""
        return F.cross_entropy(outputs.prediction.float(), batch.targets)

    def meters(self, device: str) -> Accuracy:
        return Accuracy(load(self.data).classes, device)

    # -- nets ------------------------------------------------------------------------------------------------------

    def build(self, model: ImageNetSpec) -> nn.Module:
        images = load(self.data)
        return model.build(channels=images.train_images.shape[1], classes=images.classes)

    @property
    def teacher_key(self) -> str:
        inputs = [load(self.data).fingerprint, self.validation, self.split_seed, describe(self.views)]
        return self.teacher.key(inputs)

    def _teacher(self, job: Job) -> TeacherOutputs:
        return _kept_teacher(self, job.storage, self.teacher_key, job.device)

    def _trained(self, job: Job) -> Iterator[Row]:
        model, recipe = self.teacher.model, self.teacher.recipe
        return distill(self, job, lambda: self.build(model), recipe, NoDistillation(), no_teacher)

    def _imported(self, job: Job) -> Iterator[Row]:
        assert self.teacher.weights is not None
        net = teachers.load_weights(self.build(self.teacher.model), self.teacher.weights).to(job.device)
        checkpoint.save(job.checkpoint, {"net": net.state_dict()})
        yield Row(epoch=1, metrics=evaluate(self, net, "val", job.device), schedules={}, seconds=0.0)

    def _keep_teacher(self, job: Job, row: Row) -> None:
        state = checkpoint.load(job.checkpoint, job.device)
        assert state is not None
        net = self.build(self.teacher.model).to(job.device)
        net.load_state_dict(state["net"])
        row["metrics"] |= evaluate(self, net, "test", job.device)
        record = {
            "name": self.teacher.model.name,
            "parameters": parameters(net),
            "source": f"file {self.teacher.weights.name}" if self.teacher.weights else "trained here",
            "metrics": row["metrics"],
            "fingerprint": self.teacher_key,
            "description": describe(self.teacher),
        }
        teachers.keep(job.storage, self.teacher_key, net.state_dict(), record)


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
        return Batch(normalise(pixels, self.mean, self.std), self.labels[samples], samples, views)


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


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


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


@lru_cache(maxsize=2)
def _kept_teacher(task: Classification, storage: Path, key: str, device: str) -> TeacherOutputs:
    net = teachers.load_weights(task.build(task.teacher.model), teachers.folder(storage, key) / "weights.safetensors")
    return teachers.live(teachers.frozen(net, device), task.outputs)


def _indices(task: Classification, split: str) -> np.ndarray[Any, Any]:
    labels = load(task.data).train_labels
    if split == "train+val":
        return np.arange(len(labels))
    train, val = stratified_split(labels, task.validation, task.split_seed)
    return train if split == "train" else val


def _probe(loss: DistillationLoss, classes: int) -> None:
    """Try a loss on a small batch of this many classes, for what only the data can show to be wrong."""
    logits = torch.linspace(-1, 1, 2 * classes).view(2, classes)
    loss(Outputs(logits), Outputs(logits.half()), torch.zeros(2, dtype=torch.int64), Progress(0, 1))

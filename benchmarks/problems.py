"""What search.py searches: the simulated task, and a small net that learns scikit-learn's digits from a larger one.

The digits are real training by KD as trainables/losses/kd.py computes it, with a learning rate along a cosine as in the
CIFAR studies of digits, and the optimiser's settings are searched as well. The net has one hidden layer so that dozens
of searches fit into minutes; it draws no views and keeps no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study import Arm, Budget, Study, choice, log_uniform, uniform
from study.task import Metric
from study.trial import EpochResult, TrialContext
from trainables.data.arrays.splits import stratified_split
from trainables.data.digits import Digits
from trainables.losses.kd import KD
from trainables.task import Outputs
from trainables.tasks.simulated import ACCURACY, Extra, Simulated, SimulatedLoss, SimulatedStudent
from trainables.training.schedules import Cosine, Progress

EPOCHS = 27
BATCH, HELD_OUT = 64, 0.5
TEACHER_EPOCHS = 40


@dataclass(frozen=True)
class Student:
    name: str = "64-24-10"


@dataclass(frozen=True)
class Settings:
    """KD with the task loss weighted 1, and SGD's own settings; the learning rate falls along a cosine."""

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    weight: float = 0.9
    needs_teacher: ClassVar[bool] = False  # the engine has none to prepare: the task trains its own


@dataclass(frozen=True)
class SmallNet:
    """Half of the digits' training pool is learned from, the other half is validation."""

    metrics: ClassVar[Mapping[str, Metric]] = {"val/accuracy": ACCURACY, "test/accuracy": ACCURACY}

    def train(self, job: TrialContext) -> Iterator[EpochResult]:
        loss: Settings = job.loss
        images, targets, val_images, val_targets = _digits()
        torch.manual_seed(job.trial.seed)
        net = _net(24)
        optimizer = torch.optim.SGD(net.parameters(), momentum=loss.momentum, weight_decay=loss.weight_decay)
        kd = KD(temperature=loss.temperature, weight=loss.weight, task_weight=1.0)
        teacher, schedule = _teacher_logits(), Cosine(loss.learning_rate)
        for epoch in range(job.trial.epochs):
            for group in optimizer.param_groups:
                group["lr"] = schedule.value_at(Progress(epoch, job.trial.epochs))
            for batch in _batches(len(images)):
                logits, progress = net(images[batch]), Progress(epoch, job.trial.epochs)
                value = kd(Outputs(logits), Outputs(teacher[batch]), targets[batch], progress)
                _step(optimizer, value + F.cross_entropy(logits, targets[batch]))
            accuracy = _accuracy(net, val_images, val_targets)
            yield EpochResult(epoch=epoch + 1, metrics={"val/accuracy": accuracy}, schedules={}, seconds=0.0)


def simulated(seed: int) -> Study:
    """Curves with three settings, one of them conditional; noise is 0.3 points, as much as top-1 accuracies vary."""
    loss = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), extra=choice(None, Extra(uniform(0, 1))))
    task = Simulated(noise=0.003, seed_effect=0.003, teacher_epochs=0, checkpoints=False)
    return _study("simulated", task, SimulatedStudent(), SimulatedLoss(), loss, seed)


def digits(seed: int) -> Study:
    """Five settings of KD and SGD, each over the range from clearly too low to clearly too high."""
    loss = Settings(
        learning_rate=log_uniform(1e-3, 1),
        momentum=uniform(0, 0.99),
        weight_decay=log_uniform(1e-6, 1e-1),
        temperature=uniform(1, 10),
        weight=log_uniform(0.05, 10),
    )
    return _study("digits", SmallNet(), Student(), Settings(), loss, seed)


PROBLEMS = {"simulated": simulated, "digits": digits}


def _study(name: str, task: Any, student: Any, plain: Any, searched: Any, seed: int) -> Study:
    return Study(
        name=name,
        question="How many epochs does the search take?",
        task=task,
        students=(student,),
        arms=(Arm("plain", plain, baseline=True), Arm("searched", searched)),
        budget=Budget(trials=1, epochs=EPOCHS, seeds=1),
        seed=seed,
    )


@cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (N, 64) of training and validation, normalised, with their targets (N,)."""
    pool = Digits().load()
    images = torch.from_numpy(pool.train_images).flatten(1).float() / 255
    images = (images - pool.mean[0]) / pool.std[0]
    targets = torch.from_numpy(pool.train_labels)
    learned, held_out = map(torch.from_numpy, stratified_split(pool.train_labels, HELD_OUT, seed=0))
    return images[learned], targets[learned], images[held_out], targets[held_out]


@cache
def _teacher_logits() -> Tensor:
    """(N, 10) on the training images, of a net ten times as wide."""
    images, targets, *_ = _digits()
    torch.manual_seed(0)
    net = _net(240)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(TEACHER_EPOCHS):
        for batch in _batches(len(images)):
            _step(optimizer, F.cross_entropy(net(images[batch]), targets[batch]))
    with torch.no_grad():
        logits: Tensor = net(images)
    return logits


def _net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def _batches(count: int) -> Iterator[Tensor]:
    order = torch.randperm(count)
    return (order[start : start + BATCH] for start in range(0, count, BATCH))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _accuracy(net: nn.Module, images: Tensor, targets: Tensor) -> float:
    return float((net(images).argmax(1) == targets).float().mean())

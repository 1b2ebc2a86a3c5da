"""The search problems of search.py: the simulated task, and a small net that distils on scikit-learn's digits.

The digits problem is real training with KD (trainables/losses/logits/kd.py) and a cosine learning rate, as in the CIFAR
studies of digits; the optimiser's settings are searched too. The net has one hidden layer, so that dozens of searches
take minutes; it draws no views and keeps no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study import Arm, Budget, Study, choice, integer, log_uniform, uniform
from study.task import Metric
from study.trial import EpochResult, TrialContext
from trainables.data.arrays.splits import stratified_split
from trainables.data.digits import Digits
from trainables.losses.logits.kd import KD
from trainables.task import Outputs
from trainables.tasks.moving import MovingLoss, MovingOptimum
from trainables.tasks.simulated import ACCURACY, Extra, Simulated, SimulatedLoss, SimulatedStudent
from trainables.training.schedules import Cosine, Staircase
from trainables.training.settings import Progress

EPOCHS = 27
BATCH, VALIDATION_SHARE = 64, 0.5
TEACHER_EPOCHS = 40


@dataclass(frozen=True)
class Student:
    """A net of 64 inputs, 24 hidden units and 10 outputs."""

    name: str = "64-24-10"


@dataclass(frozen=True)
class Settings:
    """The settings of KD, whose task loss has weight 1, and of SGD with a cosine learning rate."""

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    weight: float = 0.9
    needs_teacher: ClassVar[bool] = False  # no preparation by the engine: the task trains its own teacher


@dataclass(frozen=True)
class SmallNet:
    """A task that trains on half of the digits' training pool and validates on the other half."""

    metrics: ClassVar[Mapping[str, Metric]] = {"val/accuracy": ACCURACY, "test/accuracy": ACCURACY}
    costs: ClassVar[tuple[str, ...]] = ()
    recipe: ClassVar[None] = None  # the loss holds its settings

    def with_recipe(self, recipe: None) -> Self:
        return self

    def train(self, context: TrialContext) -> Iterator[EpochResult]:
        loss: Settings = context.loss
        images, targets, val_images, val_targets = _load_digits()
        teacher, schedule = _compute_teacher_logits(), Cosine(loss.learning_rate)  # before the seed: it draws, once
        torch.manual_seed(context.trial.seed)
        net = _build_net(24)
        optimizer = torch.optim.SGD(net.parameters(), momentum=loss.momentum, weight_decay=loss.weight_decay)
        kd = KD(temperature=loss.temperature, weight=loss.weight, task_weight=1.0)
        for epoch in range(context.trial.epochs):
            for group in optimizer.param_groups:
                group["lr"] = schedule.value_at(Progress(epoch, context.trial.epochs))
            for batch in _draw_batches(len(images)):
                logits, progress = net(images[batch]), Progress(epoch, context.trial.epochs)
                value = kd(Outputs(logits), Outputs(teacher[batch]), targets[batch], progress)
                _step(optimizer, value + F.cross_entropy(logits, targets[batch]))
            accuracy = _measure_accuracy(net, val_images, val_targets)
            yield EpochResult(epoch=epoch + 1, metrics={"val/accuracy": accuracy}, schedules={}, seconds=0.0)


def make_simulated_study(seed: int) -> Study:
    """Return a study of curves with three settings, one conditional; noise is 0.3 points, as in top-1 accuracies."""
    loss = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), extra=choice(None, Extra(uniform(0, 1))))
    task = Simulated(noise=0.003, seed_effect=0.003, teacher_epochs=0, checkpoints=False)
    return _make_study("simulated", task, SimulatedStudent(), SimulatedLoss(), loss, seed)


def make_late_study(seed: int) -> Study:
    """Return a study of curves whose settings take effect late: x and y leave a common start in the second stage."""
    loss = SimulatedLoss(x=Staircase(0.9, uniform(0, 1), stages=4), y=Staircase(0.1, uniform(0, 1), stages=4))
    task = Simulated(noise=0.003, seed_effect=0.003, teacher_epochs=0, checkpoints=False)
    return _make_study("late", task, SimulatedStudent(), SimulatedLoss(), loss, seed)


def make_digits_study(seed: int) -> Study:
    """Return a study of five settings of KD and SGD, each ranging from clearly too low to clearly too high."""
    loss = Settings(
        learning_rate=log_uniform(1e-3, 1),
        momentum=uniform(0, 0.99),
        weight_decay=log_uniform(1e-6, 1e-1),
        temperature=uniform(1, 10),
        weight=log_uniform(0.05, 10),
    )
    return _make_study("digits", SmallNet(), Student(), Settings(), loss, seed)


def make_moving_study(seed: int) -> Study:
    """Return a study whose best settings move: an arm searches staircases, another constants, for a population."""
    fixed = Staircase(uniform(0, 1), uniform(0, 1), stages=integer(1, 9))
    study = _make_study(
        "moving", MovingOptimum(noise=0.003, seed_effect=0.003), SimulatedStudent(), MovingLoss(), MovingLoss(), seed
    )
    arms = (
        study.arms[0],
        Arm("fixed", MovingLoss(x=fixed, y=fixed)),
        Arm("dynamic", MovingLoss(x=uniform(0, 1), y=uniform(0, 1))),
    )
    return replace(study, arms=arms)


PROBLEMS = {"simulated": make_simulated_study, "late": make_late_study, "digits": make_digits_study}


def _make_study(name: str, task: Any, student: Any, plain: Any, searched: Any, seed: int) -> Study:
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
def _load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return normalised images (N, 64) and targets (N,) of training, then of validation."""
    pool = Digits().load()
    images = torch.from_numpy(pool.train_images).flatten(1).float() / 255
    images = (images - pool.mean[0]) / pool.std[0]
    targets = torch.from_numpy(pool.train_labels)
    train, val = map(torch.from_numpy, stratified_split(pool.train_labels, VALIDATION_SHARE, seed=0))
    return images[train], targets[train], images[val], targets[val]


@cache
def _compute_teacher_logits() -> Tensor:
    """Train a net ten times as wide, and return its logits (N, 10) on the training images."""
    images, targets, *_ = _load_digits()
    torch.manual_seed(0)
    net = _build_net(240)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(TEACHER_EPOCHS):
        for batch in _draw_batches(len(images)):
            _step(optimizer, F.cross_entropy(net(images[batch]), targets[batch]))
    with torch.no_grad():
        logits: Tensor = net(images)
    return logits


def _build_net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def _draw_batches(count: int) -> Iterator[Tensor]:
    order = torch.randperm(count)
    return (order[start : start + BATCH] for start in range(0, count, BATCH))


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _measure_accuracy(net: nn.Module, images: Tensor, targets: Tensor) -> float:
    return float((net(images).argmax(1) == targets).float().mean())

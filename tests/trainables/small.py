"""A classification task small enough for tests, and how to run its trials and preparations without an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from study.task import Plan
from study.trial import EpochResult, Trial, TrialContext
from trainables.data.digits import Digits
from trainables.losses.logits.dkd import DKD
from trainables.models.resnet_cifar import ResNet
from trainables.tasks.classification.task import Classification
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe
from trainables.training.schedules import MultiStep, Staircase
from trainables.training.views import CropFlip

LP = DKD(pruning=Staircase(0.0, 0.4, stages=3))
RECIPE = Recipe(batch_size=32, learning_rate=MultiStep(0.05))
TASK = Classification(
    data=Digits(train=100),
    teacher=Teacher(ResNet(8), RECIPE, epochs=2),
    recipe=RECIPE,
    views=CropFlip(padding=1, flip=False),
    validation=0.2,
)
PLAN = Plan(((7, "train"), (8, "train+val")), epochs=4)


def job(
    task, storage, folder, *, phase="search", epochs=3, loss=LP, seed=7, recorded=0, train_on="train", number=0
) -> TrialContext:
    confirm = phase == "confirm"
    return TrialContext(
        trial=Trial(phase, "resnet8w4", "arm", number, seed, epochs, {}, {}),
        task=task,
        student=ResNet(8, width=4),
        loss=loss,
        recipe=task.recipe,
        checkpoint=folder,
        storage=storage,
        device="cpu",
        recorded_epochs=recorded,
        train_on=train_on,
        validate=not confirm or train_on == "train",
        test=confirm,
    )


def prepared(task, storage: Path, plan: Plan = PLAN) -> list[tuple[str, list[EpochResult]]]:
    """Do every preparation, stage by stage; returns the steps with the rows they told."""
    done = []
    while steps := task.list_preparations(storage, plan):
        step = min(steps, key=lambda step: step.stage)
        made = job(task, storage, storage / "c" / step.name, phase="prepare", epochs=step.epochs, loss=None)
        trial = dataclasses.replace(made.trial, arm=step.name, config=step.config)
        done.append((step.name, list(task.prepare(dataclasses.replace(made, trial=trial)))))
    return done


def metrics(rows: list[EpochResult]) -> list[dict[str, float]]:
    return [row["metrics"] for row in rows]

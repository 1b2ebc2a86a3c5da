"""What is tried before a study starts: nets on an empty sample, losses on what these nets say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.trial import Split
from trainables.task import Batch, DistillationLoss, Outputs, TrainableTask, without_pretrained
from trainables.teacher import weights as teachers
from trainables.training.recipe import Recipe
from trainables.training.schedules import Progress


def check_students(
    task: TrainableTask,
    students: Sequence[Any],
    losses: Sequence[DistillationLoss],
    storage: Path,
    trained_on: Sequence[Split],
    empty: Batch,
    build: Callable[[Any], nn.Module] | None = None,
) -> None:
    """Try the teacher, each student, and each loss on both, with a batch of one sample whose content does not matter.

    `build` makes a net to be tried, where the task's own `build` leaves something to be filled in.
    Raises InputError for weights that are missing or do not fit, a last batch too small for batch norm, and a loss
    that fails.
    """
    build = build or task.build
    teacher = _tried_teacher(task, storage, empty, build)
    for student in students:
        said = _tried(task, build(student), empty)
        for split in trained_on:
            _check_last_batch(task, student, task.recipe, split, empty, build)
        shapes = [tuple(outputs.prediction.shape) for outputs in (said, teacher)]
        for loss in losses:
            told = Outputs(teacher.prediction.half(), teacher.features)
            check_loss(loss, said, told, empty.targets, f"outputs of the student {shapes[0]} and teacher {shapes[1]}")


def check_loss(loss: DistillationLoss, student: Outputs, teacher: Outputs, targets: Any, samples: str) -> None:
    """Try a loss on a few samples before a study starts, for what only the data can show to be wrong.

    Raises InputError, telling it by `samples` what these were.
    """
    name = type(loss).__name__
    if not hasattr(loss, "task_weight"):
        raise InputError(f"{name} has no 'task_weight': see \"Adding a loss\" in README.md")
    try:
        value = loss(student, teacher, targets, Progress(0, 1))
    except InputError:
        raise
    except Exception as error:  # whatever a loss of the user's own may raise
        raise InputError(f"{name} raises {type(error).__name__} on {samples}: {error}") from error
    if value.dim():
        raise InputError(
            f"{name} returns a tensor of shape {tuple(value.shape)}; a loss is one number, its mean perhaps"
        )


def _tried_teacher(task: TrainableTask, storage: Path, empty: Batch, build: Callable[[Any], nn.Module]) -> Outputs:
    """As `_tried`; where the teacher is to be trained, with what that needs beside the net."""
    model, weights = task.teacher.model, task.teacher.weights
    if weights is not None:
        teachers.load_weights(task.build(without_pretrained(model)), weights)
    elif teachers.read_record(storage, task.teacher_key) is None:
        _check_last_batch(task, model, task.teacher.recipe, "train", empty, build)
        return _tried(task, build(model), empty)
    return _tried(task, build(without_pretrained(model)), empty)


@torch.no_grad()
def _tried(task: TrainableTask, net: nn.Module, empty: Batch) -> Outputs:
    """What a net that was never trained says of an empty sample: its shapes are those of any."""
    return task.outputs(net.eval(), empty)


@torch.no_grad()
def _check_last_batch(
    task: TrainableTask, model: Any, recipe: Recipe, split: Split, empty: Batch, build: Callable[[Any], nn.Module]
) -> None:
    """Try a net on the last batch of an epoch where that is one sample: batch norm needs more than one pixel in all."""
    samples, batch = len(task.positions(split)), recipe.batch_size
    if (samples - 1) % batch:
        return
    try:
        task.outputs(build(without_pretrained(model)).train(), empty)
    except ValueError:
        raise InputError(
            f"{model.name} trains on {samples} samples in batches of {batch}: the last batch is one sample, too few "
            "for its batch norm; give another batch size, or hold out another number for validation"
        ) from None


def empty_batch(inputs: Tensor, targets: Any) -> Batch:
    """A batch of one untouched sample (1, C, H, W)."""
    nothing = torch.zeros(1, dtype=torch.int64, device=inputs.device)
    return Batch(inputs, targets, nothing, nothing)

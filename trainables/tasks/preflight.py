"""Checks of a task before a study starts: of its data, and of nets and losses on one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.errors import InputError, format_place
from study.trial import Split
from trainables.data.arrays.duplicates import ImageHashes, describe_duplicates, find_duplicates
from trainables.export.cost import single_thread
from trainables.task import Batch, DistillationLoss, ModelSpec, Outputs, without_pretrained
from trainables.teacher.weights import read_record
from trainables.training.recipe import Recipe
from trainables.training.settings import Progress

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask


MAX_TRIED = 256
"""Samples of a batch on which a loss is tried, at most: some compare all samples of a batch with each other, and the
machine that checks may be smaller than the one that trains."""

MAX_DUPLICATES = 1000
"""Images in several splits that study.json lists, at most: more need another split, not a list."""


def check_task(
    task: DistillationTask[Any],
    students: tuple[ModelSpec, ...],
    losses: tuple[DistillationLoss, ...],
    storage: Path,
    trained_on: Sequence[Split],
    recipes: Sequence[Recipe],
) -> dict[str, Any]:
    """Check data, weights, students and losses, and return what identifies data and teacher.

    Raises InputError naming what is missing or wrong.
    """
    task.check_data(students, losses)
    for loss in losses:
        task.adapt_to(loss)
    loaded, key = task.loaded, task.teacher_key
    sizes = {split: len(task.positions(split)) for split in ("train", "val", "test")}
    with single_thread():  # tensors are so small that several threads would wait for each other
        _check_students(task, students, losses, storage, trained_on, recipes)
    splits, further = _load_hashes(task), task.data_record()
    found = find_duplicates(splits)
    duplicates = describe_duplicates(found, splits)
    note = "; ".join(part for part in (loaded.note, duplicates, further.pop("note", "")) if part)
    about = {"name": loaded.name, "note": note, "duplicates": duplicates, "complete": loaded.complete}
    root = getattr(task.data, "root", None)
    about |= {} if root is None else {"folder": str(root)}  # where an export finds the data again
    about |= {"duplicate_images": [one._asdict() for one in found[:MAX_DUPLICATES]]} if found else {}
    data = about | {"fingerprint": loaded.fingerprint} | sizes | further
    return {"data": data, "teacher": {"fingerprint": key}}


def _load_hashes(task: DistillationTask[Any]) -> dict[str, ImageHashes]:
    """Return the hashes of each split's images, if the data have hashes; else nothing."""
    hashes = getattr(task.loaded, "hashes", None)
    if hashes is None:
        return {}
    pool, test = hashes
    train, val = (pool.select(task.positions(split).numpy()) for split in ("train", "val"))
    return {"training": train, "validation": val, "test": test}


def _check_students(
    task: DistillationTask[Any],
    students: Sequence[ModelSpec],
    losses: Sequence[DistillationLoss],
    storage: Path,
    trained_on: Sequence[Split],
    recipes: Sequence[Recipe],
) -> None:
    """Try the teacher, each student by each recipe, and each loss on the outputs of both.

    Raises InputError for weights that are missing or do not fit, a last batch too small for batch norm, and a loss
    that fails.
    """
    sample = task.sample_batch()
    teacher = _try_teacher(task, storage, sample)
    stored = Outputs(teacher.prediction.half(), teacher.features)
    for model in students:
        student = _try_net(task, task.build_for_checks(model), sample)
        for split, recipe in product(trained_on, recipes):
            _check_last_batch(task, model, recipe, split, sample)
        sizes = _list_batch_sizes(task, trained_on, recipes)
        shapes = [tuple(outputs.prediction.shape) for outputs in (student, teacher)]
        for loss in losses:
            tried_on = f"outputs of the student {shapes[0]} and teacher {shapes[1]}"
            check_loss(loss, student, stored, sample.targets, tried_on)
            for size in sizes if isinstance(sample.targets, Tensor) else ():
                _check_loss_of_batch(loss, student, stored, sample.targets, size)


def check_loss(loss: DistillationLoss, student: Outputs, teacher: Outputs, targets: Any, tried_on: str) -> None:
    """Try a loss on outputs and targets of a few samples, described for messages by `tried_on`.

    Raises InputError if the loss has no `task_weight`, raises, or returns anything but a scalar of floats.
    """
    name = type(loss).__name__
    if not hasattr(loss, "task_weight"):
        raise InputError(f"{name} has no 'task_weight': see docs/extending.md")
    try:
        value = loss(student, teacher, targets, Progress(0, 1))
    except InputError:
        raise
    except Exception as error:  # a user's own loss may raise anything
        place = format_place(error)
        raise InputError(f"{name} raises {type(error).__name__} on {tried_on}: {error}{place}") from error
    if not isinstance(value, Tensor):
        raise InputError(f"{name} returns {type(value).__name__}; allowed is a tensor, a scalar")
    if not value.is_floating_point():
        raise InputError(f"{name} returns a tensor of {value.dtype}; allowed is one of floats, with a gradient")
    if value.dim():
        raise InputError(
            f"{name} returns a tensor of shape {tuple(value.shape)}; allowed is a scalar: take the mean over the batch"
        )


def _check_loss_of_batch(
    loss: DistillationLoss, student: Outputs, teacher: Outputs, targets: Tensor, size: int
) -> None:
    """Try a loss on a batch of this size, of the samples again and again; that of one sample must be finite.

    Raises InputError if it raises or is not.
    """
    rows = torch.arange(size, device=targets.device) % len(targets)
    of_student, of_teacher = (
        Outputs(outputs.prediction[rows], {name: each[rows] for name, each in outputs.features.items()})
        for outputs in (student, teacher)
    )
    tried_on = f"{size:,} samples, which a batch of an epoch has"
    if size == 1:
        tried_on = "one sample, which the last batch of an epoch is: give another batch size"
    check_loss(loss, of_student, of_teacher, targets[rows], tried_on)
    if size == 1:
        value = loss(of_student, of_teacher, targets[rows], Progress(0, 1))
        if not value.isfinite():
            raise InputError(f"{type(loss).__name__} is {value.item()} on {tried_on}")


def _list_batch_sizes(task: DistillationTask[Any], splits: Sequence[Split], recipes: Sequence[Recipe]) -> list[int]:
    """Return the sizes of whole and of last batches of an epoch, those that are tried."""
    sizes = set[int]()
    for split, recipe in product(splits, recipes):
        samples = len(task.positions(split))
        whole = min(samples, recipe.batch_size)
        sizes |= {whole, samples % whole or whole}
    return sorted({min(size, MAX_TRIED) for size in sizes})


def _ends_with_one(task: DistillationTask[Any], recipe: Recipe, split: Split) -> bool:
    """Return whether the last batch of an epoch is one sample."""
    return (len(task.positions(split)) - 1) % recipe.batch_size == 0


def _try_teacher(task: DistillationTask[Any], storage: Path, sample: Batch) -> Outputs:
    """Return the teacher's outputs; where it is still to be trained, check what its training needs."""
    model, weights = task.teacher.model, task.teacher.weights
    if weights is not None:
        task.load_teacher_file(weights)
    elif read_record(storage, task.teacher_key) is None:
        _check_last_batch(task, model, task.teacher.recipe, "train", sample)
        return _try_net(task, task.build_for_checks(model), sample)
    return _try_net(task, task.build_for_checks(without_pretrained(model)), sample)


@torch.no_grad()
def _try_net(task: DistillationTask[Any], net: nn.Module, sample: Batch) -> Outputs:
    return task.outputs(net.eval(), sample)


@torch.no_grad()
def _check_last_batch(
    task: DistillationTask[Any], model: ModelSpec, recipe: Recipe, split: Split, sample: Batch
) -> None:
    """Try a net on the last batch of an epoch if that is one sample: batch norm needs more than one value a channel."""
    if not _ends_with_one(task, recipe, split):
        return
    samples, batch_size = len(task.positions(split)), recipe.batch_size
    last = replace(sample, inputs=sample.inputs[:1], samples=sample.samples[:1], views=sample.views[:1])
    try:
        task.outputs(task.build_for_checks(without_pretrained(model)).train(), last)
    except ValueError:
        raise InputError(
            f"{model.name} trains on {samples} samples in batches of {batch_size}: the last batch is one sample, too "
            "few for its batch norm; give another batch size, or hold out another number for validation"
        ) from None


def blank_batch(inputs: Tensor, targets: Any) -> Batch:
    """Return a batch of one untouched sample (1, C, H, W), for `sample_batch` of a task whose data is slow to read."""
    zero = torch.zeros(1, dtype=torch.int64, device=inputs.device)
    return Batch(inputs, targets, zero, zero)

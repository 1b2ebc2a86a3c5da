"""Sources of a trial's teacher outputs: none, the store, or the net itself.

Nets and stores are cached for the life of a process: a reused worker opens them once, not once a trial.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from study.identity import describe, digest
from study.task import reads_features
from study.trial import Split, TrialContext
from trainables.task import NO_TEACHER, FrozenTeacher, without_pretrained
from trainables.teacher.output_store import StoredTeacher
from trainables.teacher.weights import WEIGHTS_FILE, LiveTeacher, load_weights, teacher_folder, weights_digest
from trainables.training.nets import to_device

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

OUTPUTS_FOLDER = "outputs"


def open_teacher(task: DistillationTask[Any], context: TrialContext) -> FrozenTeacher:
    """Return the source of a trial's teacher outputs: none, the store, or the net itself.

    A store holds predictions alone: the teacher of a loss that reads features is run at every step.
    """
    if not context.loss.needs_teacher:
        return NO_TEACHER
    if task.stored_output_bytes is None or reads_features(context.loss):
        return open_live_teacher(task, context.storage, context.device)
    return open_stored_teacher(task, context.storage, context.train_on, context.device)


def open_live_teacher(task: DistillationTask[Any], storage: Path, device: str) -> FrozenTeacher:
    return LiveTeacher(open_net(task, storage, device), task.outputs)


def open_stored_teacher(task: DistillationTask[Any], storage: Path, split: Split, device: str) -> FrozenTeacher:
    return _cached_store(task, storage, weights_digest(storage, task.teacher_key), split, device)


def open_net(task: DistillationTask[Any], storage: Path, device: str) -> nn.Module:
    return _cached_net(task, storage, weights_digest(storage, task.teacher_key), device)


# `teacher` is the digest of the weights: a teacher that was trained again is opened again


@lru_cache(maxsize=2)
def _cached_net(task: DistillationTask[Any], storage: Path, teacher: str, device: str) -> nn.Module:
    weights = teacher_folder(storage, task.teacher_key) / WEIGHTS_FILE
    net = to_device(load_weights(task.build(without_pretrained(task.teacher.model)), weights), device)
    return net.eval().requires_grad_(False)


@lru_cache(maxsize=2)
def _cached_store(task: DistillationTask[Any], storage: Path, teacher: str, split: Split, device: str) -> FrozenTeacher:
    pool, folder = len(task.positions("train+val")), store_folder(task, storage)
    return StoredTeacher(folder, teacher, task.positions(split), pool, task.views.count, device)


def store_folder(task: DistillationTask[Any], storage: Path) -> Path:
    return storage / OUTPUTS_FOLDER / store_key(task)


def store_key(task: DistillationTask[Any]) -> str:
    """Return a hash of the teacher's key, the pool and its normalisation, and the views.

    The digest of the teacher's weights is in each shard instead: a teacher may have to be trained again.
    """
    return digest("outputs", task.teacher_key, task.pool_key, describe(task.views))

"""What trials wait for, for all tasks: a teacher, trained or read from a file, and its outputs, stored.

The steps are found by looking at what is there, so that nothing is made twice, by this study or another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.identity import describe, digest
from study.task import Plan, Preparation
from study.trial import EpochResult, Split, TrialContext
from trainables import sample_panels as exhibits
from trainables.distill import TeacherOutputs, distill, evaluate, no_teacher, to_device
from trainables.losses.none import NoDistillation
from trainables.task import count_parameters, without_pretrained
from trainables.teacher import output_store as store
from trainables.teacher import weights as teachers
from trainables.training import checkpoint

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

TEACHER = "teacher"

ASKED_AT_ONCE = 8
"""How many views a teacher is asked about at once, at least: those of a store are of one size, where whole images may
not be."""


def preparations(task: DistillationTask[Any], storage: Path, plan: Plan) -> list[Preparation]:
    """The steps still to do, the teacher's first; none for a plan that never asks the teacher.

    Only looks: what is damaged stays until a step replaces it.
    Raises InputError if the teacher's outputs would not fit on the disk.
    """
    if not plan.runs:
        return []
    teacher = teachers.kept(storage, task.teacher_key)
    if teacher is None:
        return [_teacher_step(task), *_store_steps(task, storage, plan, store.NOBODY)]
    return _store_steps(task, storage, plan, teacher["sha256"])


def artifacts(task: DistillationTask[Any]) -> tuple[str, ...]:
    """Where the teacher and its outputs lie below the storage."""
    stored = () if task.stored_output_bytes is None else (f"outputs/{_store_key(task)}",)
    return (f"teachers/{task.teacher_key}", *stored)


def sound(path: Path) -> bool:
    """Whether a file of these is what its checksum says."""
    return store.sound(path) if path.parent.parent.name == "outputs" else teachers.sound(path)


def prepare(task: DistillationTask[Any], job: TrialContext) -> Iterator[EpochResult]:
    """Do one step."""
    if job.trial.arm == TEACHER:
        return _import_teacher(task, job) if task.teacher.weights else _train_teacher(task, job)
    return _store_outputs(task, job)


def teacher_outputs(task: DistillationTask[Any], job: TrialContext) -> TeacherOutputs:
    """Where a trial's teacher outputs come from: nowhere, the store, or the net itself."""
    if not job.loss.needs_teacher:
        return no_teacher
    if task.stored_output_bytes is None:
        return _live(task, job.storage, job.device)
    return _stored(task, job.storage, job.train_on, job.device)


# -- the teacher -------------------------------------------------------------------------------------------------------


def _teacher_step(task: DistillationTask[Any]) -> Preparation:
    teacher = task.teacher
    epochs = 1 if teacher.weights else teacher.epochs
    trained = f"train teacher {teacher.model.name}, epochs: {epochs}"
    note = f"read teacher {teacher.weights}" if teacher.weights else trained
    return Preparation(TEACHER, epochs, {"teacher": describe(teacher), "key": task.teacher_key}, stage=0, note=note)


def _train_teacher(task: DistillationTask[Any], job: TrialContext) -> Iterator[EpochResult]:
    teacher = task.teacher
    rows = distill(task, job, lambda: task.teacher_net(job), teacher.recipe, NoDistillation(), no_teacher)
    for row in rows:
        if row["epoch"] == job.trial.epochs:
            state = checkpoint.load(job.checkpoint)
            assert state is not None
            net = to_device(task.build(without_pretrained(teacher.model)), job.device)
            net.load_state_dict(state["net"])
            _keep(task, job, net, row, "trained here")
        yield row


def _import_teacher(task: DistillationTask[Any], job: TrialContext) -> Iterator[EpochResult]:
    assert task.teacher.weights is not None
    started = time.perf_counter()
    net = task.build(without_pretrained(task.teacher.model))
    net = to_device(teachers.load_weights(net, task.teacher.weights), job.device)
    metrics = evaluate(task, net, "val", job.device)
    row = EpochResult(epoch=1, metrics=metrics, schedules={}, seconds=time.perf_counter() - started)
    _keep(task, job, net, row, f"file {task.teacher.weights.name}")
    yield row


def _keep(task: DistillationTask[Any], job: TrialContext, net: nn.Module, row: EpochResult, source: str) -> None:
    """Store the teacher with its scores; its test score is for the report's reference row and selects nothing."""
    row["metrics"] |= evaluate(task, net, "test", job.device)
    record = {
        "name": task.teacher.model.name,
        "parameters": count_parameters(net),
        "source": source,
        "metrics": row["metrics"],
        "fingerprint": task.teacher_key,
        "description": describe(task.teacher),
    }
    exhibits.write_panels(task, net, teachers.folder(job.storage, task.teacher_key), job.device)
    teachers.keep(job.storage, task.teacher_key, net.state_dict(), record)


# -- its outputs -------------------------------------------------------------------------------------------------------


def _store_steps(task: DistillationTask[Any], storage: Path, plan: Plan, teacher: str) -> list[Preparation]:
    """A step for each block of samples of which some view of this teacher is not stored yet."""
    if task.stored_output_bytes is None:
        return []
    folder = store_folder(task, storage)
    drawn = drawn_views(task, plan)
    shards, unusable = store.usable_shards(folder, teacher)
    missing = drawn & ~store.held(shards, range(len(drawn)), task.views.count)
    blocks = [
        block for block in store.blocks(drawn, task.stored_output_bytes) if missing[block.start : block.stop].any()
    ]
    size = int(missing.sum()) * (task.stored_output_bytes + store.CODE_BYTES)
    replaced = {path: why for path, why in unusable.items() if any(_begins_in(task, block, path) for block in blocks)}
    store.check_disk(folder, size - sum(path.stat().st_size for path in replaced))
    again = [f"computed again: {complaint}" for complaint in store.complaints(replaced)]
    note = "; ".join([f"store teacher outputs, {size / 1e6:,.1f} MB", *again])
    return [
        Preparation(f"outputs {block.start}–{block.stop}", 1, _block_config(task, block, plan), stage=1, note=note)
        for block in blocks
    ]


def _block_config(task: DistillationTask[Any], block: range, plan: Plan) -> dict[str, Any]:
    return {"store": _store_key(task), "block": [block.start, block.stop], "plan": describe(plan)}


def _store_outputs(task: DistillationTask[Any], job: TrialContext) -> Iterator[EpochResult]:
    """Ask the teacher about every view of a block of samples that the plan draws and no shard holds."""
    started = time.perf_counter()
    config, count = job.trial.config, task.views.count
    block = range(*config["block"])
    plan = Plan(tuple((seed, split) for seed, split in config["plan"]["runs"]), config["plan"]["epochs"])
    folder, teacher = store_folder(task, job.storage), teachers.identity(job.storage, task.teacher_key)
    shards, unusable = store.usable_shards(folder, teacher, range(block.start * count, block.stop * count))
    for path in unusable:
        if _begins_in(task, block, path):  # of several steps side by side, one removes it
            path.unlink(missing_ok=True)
    missing = drawn_views(task, plan, block) & ~store.held(shards, block, count)
    samples, views = missing.nonzero(as_tuple=True)
    if len(samples):
        samples += block.start
        store.write_shard(folder, samples * count + views, _ask(task, job, samples, views), teacher)
    yield EpochResult(epoch=1, metrics={}, schedules={}, seconds=time.perf_counter() - started)


def _begins_in(task: DistillationTask[Any], block: range, path: Path) -> bool:
    return store.span(path).start // task.views.count in block


@torch.no_grad()
def _ask(task: DistillationTask[Any], job: TrialContext, samples: Tensor, views: Tensor) -> Tensor:
    """The teacher's float16 outputs for these samples of the pool at these views.

    Raises InputError if one is not finite.
    """
    pool, net = task.examples("train+val", job.device), _teacher_net(task, job.storage, job.device)
    at_once = max(task.evaluation_batch(job.device), ASKED_AT_ONCE)
    batches = torch.stack([samples, views]).to(job.device).split(at_once, dim=1)
    told = torch.cat([task.outputs(net, pool.batch(*pairs)).prediction.half().cpu() for pairs in batches])
    if not told.isfinite().all():
        raise InputError(
            f"teacher {task.teacher.model.name}'s outputs are not finite, or exceed 65,504: "
            "give another teacher, or another recipe to train it by"
        )
    return told


def drawn_views(task: DistillationTask[Any], plan: Plan, block: range | None = None) -> Tensor:
    """Which views of the pool's samples, or of a block of them, the plan's trainings draw: (samples, views) bool."""
    count = task.views.count
    block = range(len(task.positions("train+val"))) if block is None else block
    mask = torch.zeros(len(block) * count, dtype=torch.bool)
    here = {split: _within(task.positions(split), block) for split in {split for _, split in plan.runs}}
    for seed, split in plan.runs:
        samples, places = here[split]
        for epoch in range(plan.epochs):
            mask[places * count + task.views.draw(seed, epoch, samples)] = True
    return mask.view(-1, count)


def _within(positions: Tensor, block: range) -> tuple[Tensor, Tensor]:
    """The samples of a split that lie in a block of the pool, and where in the block."""
    samples = ((positions >= block.start) & (positions < block.stop)).nonzero().squeeze(1)
    return samples, positions[samples] - block.start


def store_folder(task: DistillationTask[Any], storage: Path) -> Path:
    return storage / "outputs" / _store_key(task)


def _store_key(task: DistillationTask[Any]) -> str:
    """What stored outputs depend on: the teacher, the pool and its normalisation, the views.

    Whose weights they are beyond the teacher's key is in each shard: a teacher may have to be trained again.
    """
    return digest("outputs", task.teacher_key, task.pool_key, describe(task.views))


def _teacher_net(task: DistillationTask[Any], storage: Path, device: str) -> nn.Module:
    return _opened_net(task, storage, teachers.identity(storage, task.teacher_key), device)


def _live(task: DistillationTask[Any], storage: Path, device: str) -> TeacherOutputs:
    return teachers.LiveTeacher(_teacher_net(task, storage, device), task.outputs)


def _stored(task: DistillationTask[Any], storage: Path, split: Split, device: str) -> TeacherOutputs:
    return _opened_store(task, storage, teachers.identity(storage, task.teacher_key), split, device)


# Kept for the life of a process: a reused worker opens the teacher or its store once, not once a trial. `teacher` tells
# one that was trained again since from what it was.


@lru_cache(maxsize=2)
def _opened_net(task: DistillationTask[Any], storage: Path, teacher: str, device: str) -> nn.Module:
    weights = teachers.folder(storage, task.teacher_key) / "weights.safetensors"
    net = to_device(teachers.load_weights(task.build(without_pretrained(task.teacher.model)), weights), device)
    return net.eval().requires_grad_(False)


@lru_cache(maxsize=2)
def _opened_store(
    task: DistillationTask[Any], storage: Path, teacher: str, split: Split, device: str
) -> TeacherOutputs:
    pool, folder = len(task.positions("train+val")), store_folder(task, storage)
    return store.StoredTeacher(folder, teacher, task.positions(split), pool, task.views.count, device)

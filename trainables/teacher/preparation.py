"""Preparations that trials wait for, the same for all tasks: the teacher, trained or read from a file, and its outputs.

The steps to do follow from the files that exist, so no study makes anything twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.identity import describe
from study.task import Plan, Preparation
from study.trial import EpochResult, TrialContext
from trainables.distill import distill
from trainables.evaluation import evaluate
from trainables.losses.none import NoDistillation
from trainables.sample_panels import write_panels
from trainables.task import NO_TEACHER, count_parameters, index_device, prefetch, without_pretrained
from trainables.teacher.label_order import count_confusions, find_label_order
from trainables.teacher.output_store import (
    CODE_BYTES,
    NOT_TRAINED,
    check_free_space,
    code_range,
    describe_unusable,
    is_shard_intact,
    mark_stored,
    open_shards,
    split_into_blocks,
    write_shard,
)
from trainables.teacher.sources import OUTPUTS_FOLDER, open_net, store_folder, store_key
from trainables.teacher.weights import (
    TEACHERS_FOLDER,
    is_teacher_intact,
    read_record,
    save_teacher,
    teacher_folder,
    weights_digest,
)
from trainables.training import checkpoint
from trainables.training.nets import to_device

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

TEACHER = "teacher"
"""The name of the step that makes the teacher."""

MIN_BATCH = 8
"""Smallest batch of a teacher that fills a store, for tasks that evaluate images of differing sizes one by one: the
views of a store have one size."""


def list_preparations(task: DistillationTask[Any], storage: Path, plan: Plan) -> list[Preparation]:
    """Return the steps still to do, the teacher's first; none for a plan without losses that need a teacher.

    Changes no file: damaged ones stay until a step replaces them.
    Raises InputError if the teacher's outputs would not fit on the disk.
    """
    if not plan.runs:
        return []
    record = read_record(storage, task.teacher_key)
    plan = plan if plan.stored_runs is None else Plan(plan.stored_runs, plan.epochs)
    if record is None:
        return [_teacher_step(task), *_store_steps(task, storage, plan, NOT_TRAINED)]
    return _store_steps(task, storage, plan, record["sha256"])


def artifact_folders(task: DistillationTask[Any]) -> tuple[str, ...]:
    """Return the folders of the teacher and its outputs, relative to the storage."""
    outputs = () if task.stored_output_bytes is None else (f"{OUTPUTS_FOLDER}/{store_key(task)}",)
    return (f"{TEACHERS_FOLDER}/{task.teacher_key}", *outputs)


def is_intact(path: Path) -> bool:
    """Return whether a file in one of these folders matches its checksum."""
    return is_shard_intact(path) if path.parent.parent.name == OUTPUTS_FOLDER else is_teacher_intact(path)


def run_preparation(task: DistillationTask[Any], context: TrialContext) -> Iterator[EpochResult]:
    """Do one step."""
    if context.trial.arm == TEACHER:
        return _import_teacher(task, context) if task.teacher.weights else _train_teacher(task, context)
    return _fill_store(task, context)


# -- the teacher -------------------------------------------------------------------------------------------------------


def _teacher_step(task: DistillationTask[Any]) -> Preparation:
    teacher = task.teacher
    epochs = 1 if teacher.weights else teacher.epochs
    trained = f"train teacher {teacher.model.name}, epochs: {epochs}"
    note = f"read teacher {teacher.weights}" if teacher.weights else trained
    return Preparation(TEACHER, epochs, {"teacher": describe(teacher), "key": task.teacher_key}, stage=0, note=note)


def _train_teacher(task: DistillationTask[Any], context: TrialContext) -> Iterator[EpochResult]:
    teacher = task.teacher
    results = distill(task, context, lambda: task.teacher_net(context), teacher.recipe, NoDistillation(), NO_TEACHER)
    for result in results:
        if result["epoch"] == context.trial.epochs:
            state = checkpoint.load(context.checkpoint)
            assert state is not None
            net = to_device(task.build(without_pretrained(teacher.model)), context.device)
            net.load_state_dict(state["net"])
            _test_and_save(task, context, net, result, "trained here")
        yield result


def _import_teacher(task: DistillationTask[Any], context: TrialContext) -> Iterator[EpochResult]:
    assert task.teacher.weights is not None
    started = time.perf_counter()
    net = to_device(task.load_teacher_file(task.teacher.weights), context.device)
    metrics = evaluate(task, net, "val", context.device)
    result = EpochResult(epoch=1, metrics=metrics, schedules={}, seconds=time.perf_counter() - started)
    confusions = count_confusions(task, net, context.device)
    order = None if confusions is None else find_label_order(confusions)
    _test_and_save(
        task, context, net, result, f"file {task.teacher.weights.name}", {"label_order": order} if order else {}
    )
    yield result


def _test_and_save(
    task: DistillationTask[Any],
    context: TrialContext,
    net: nn.Module,
    result: EpochResult,
    source: str,
    findings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Add test metrics, which select nothing: they are the report's reference row; and store the teacher with them."""
    result["metrics"] |= evaluate(task, net, "test", context.device)
    record = {
        "name": task.teacher.model.name,
        "parameters": count_parameters(net),
        "source": source,
        "metrics": result["metrics"],
        "fingerprint": task.teacher_key,
        "description": describe(task.teacher),
        **findings,
    }
    write_panels(task, net, teacher_folder(context.storage, task.teacher_key), context.device)
    save_teacher(context.storage, task.teacher_key, net.state_dict(), record)


# -- its outputs -------------------------------------------------------------------------------------------------------


def _store_steps(task: DistillationTask[Any], storage: Path, plan: Plan, teacher: str) -> list[Preparation]:
    """Return a step for each block of samples that lacks some view of this teacher; `teacher` is its digest."""
    if task.stored_output_bytes is None or not plan.runs:
        return []
    folder, output_bytes = store_folder(task, storage), task.stored_output_bytes
    drawn = mark_drawn(task, plan)
    shards, unusable = open_shards(folder, teacher)
    missing = drawn & ~mark_stored(shards, range(len(drawn)), task.views.count)
    all_blocks = split_into_blocks(drawn, output_bytes)
    blocks = [block for block in all_blocks if missing[block.start : block.stop].any()]
    size = int(missing.sum()) * (output_bytes + CODE_BYTES)
    replaced = {path: why for path, why in unusable.items() if any(_starts_in(task, block, path) for block in blocks)}
    check_free_space(folder, size - sum(path.stat().st_size for path in replaced))
    again = [f"computed again: {line}" for line in describe_unusable(replaced)]
    note = "; ".join([f"store teacher outputs, {size / 1e6:,.1f} MB", *again])
    key, described = store_key(task), describe(plan)
    configs = [{"store": key, "block": [block.start, block.stop], "plan": described} for block in blocks]
    return [
        Preparation(f"outputs {block.start}–{block.stop}", 1, config, stage=1, note=note)
        for block, config in zip(blocks, configs, strict=True)
    ]


def _fill_store(task: DistillationTask[Any], context: TrialContext) -> Iterator[EpochResult]:
    """Compute and store the outputs of a block for all views that the plan draws and no shard contains."""
    started = time.perf_counter()
    config, count = context.trial.config, task.views.count
    block = range(*config["block"])
    plan = Plan(tuple((seed, split) for seed, split in config["plan"]["runs"]), config["plan"]["epochs"])
    folder, teacher = store_folder(task, context.storage), weights_digest(context.storage, task.teacher_key)
    shards, unusable = open_shards(folder, teacher, range(block.start * count, block.stop * count))
    for path in unusable:
        if _starts_in(task, block, path):  # a shard starts in one block: of concurrent steps, one removes it
            path.unlink(missing_ok=True)
    missing = mark_drawn(task, plan, block) & ~mark_stored(shards, block, count)
    samples, views = missing.nonzero(as_tuple=True)  # (P,), (P,)
    if len(samples):
        samples += block.start
        outputs = _compute_outputs(task, context, samples, views)
        write_shard(folder, samples * count + views, outputs, teacher)
    yield EpochResult(epoch=1, metrics={}, schedules={}, seconds=time.perf_counter() - started)


def _starts_in(task: DistillationTask[Any], block: range, path: Path) -> bool:
    """Return whether a shard's first sample lies in a block."""
    return code_range(path).start // task.views.count in block


@torch.no_grad()
def _compute_outputs(task: DistillationTask[Any], context: TrialContext, samples: Tensor, views: Tensor) -> Tensor:
    """Return the teacher's outputs for samples of the pool at these views: (P,), (P,) → (P, …) float16.

    Raises InputError if one is not finite.
    """
    pool, net = task.examples("train+val", context.device), open_net(task, context.storage, context.device)
    batch_size = max(task.evaluation_batch(context.device), MIN_BATCH)
    batches = torch.stack([samples, views]).to(index_device(pool, context.device)).split(batch_size, dim=1)
    prefetch(pool, ((batch[0], batch[1]) for batch in batches))
    outputs = torch.cat([task.outputs(net, pool.batch(*pair)).prediction.half().cpu() for pair in batches])
    if not outputs.isfinite().all():
        raise InputError(
            f"teacher {task.teacher.model.name}'s outputs are not finite, or exceed 65,504: "
            "give another teacher, or another recipe to train it by"
        )
    return outputs


def mark_drawn(task: DistillationTask[Any], plan: Plan, block: range | None = None) -> Tensor:
    """Return which views of the pool's samples, or of a block of them, the plan draws: (samples, views) bool."""
    count = task.views.count
    block = range(len(task.positions("train+val"))) if block is None else block
    mask = torch.zeros(len(block) * count, dtype=torch.bool)
    samples_of = {split: _locate(task.positions(split), block) for split in {split for _, split in plan.runs}}
    for seed, split in plan.runs:
        samples, offsets = samples_of[split]
        for epoch in range(plan.epochs):
            mask[offsets * count + task.views.draw(seed, epoch, samples)] = True
    return mask.view(-1, count)


def _locate(positions: Tensor, block: range) -> tuple[Tensor, Tensor]:
    """Return the samples of a split (N,) within a block of the pool, and their offsets in the block: (M,), (M,)."""
    samples = ((positions >= block.start) & (positions < block.stop)).nonzero().squeeze(1)
    return samples, positions[samples] - block.start

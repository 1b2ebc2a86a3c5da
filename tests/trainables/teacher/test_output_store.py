"""The store of teacher outputs: what a live teacher says, for exactly the views that are drawn, in small files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study.errors import InputError
from study.task import Plan
from tests.trainables.small import PLAN, TASK, job, metrics, prepared
from trainables.losses.common.pruning import select_kept_classes
from trainables.task import Outputs
from trainables.tasks.classification.task import Classification
from trainables.teacher import output_store as store
from trainables.teacher import preparation as preparing
from trainables.teacher import sources
from trainables.training.views import CropFlip


def shards(storage: Path) -> list[Path]:
    return sorted(sources.store_folder(TASK, storage).glob("*.safetensors"))


@pytest.mark.parametrize(("phase", "train_on", "seed"), [("search", "train", 7), ("confirm", "train+val", 8)])
def test_training_with_the_store_agrees_with_a_live_teacher(storage, tmp_path, phase, train_on, seed):
    """Within float16 rounding: a live teacher sees other batches, whose convolutions may round another way."""
    live = dataclasses.replace(TASK, teacher_store=False)
    for task in (TASK, live):
        wanted = job(task, storage, tmp_path / str(task.teacher_store), phase=phase, train_on=train_on, seed=seed)
        rows = metrics(list(task.train(wanted)))
        if task is TASK:
            stored_rows = rows
    for stored_row, live_row in zip(stored_rows, rows, strict=True):
        assert stored_row["train/loss"] == pytest.approx(live_row["train/loss"], rel=1e-3)


def test_stored_outputs_and_pruned_classes_are_the_live_ones(storage):
    positions = TASK.positions("train+val")
    views = TASK.views.draw(8, 2, torch.arange(len(positions)))
    batch = TASK.examples("train+val", "cpu").batch(torch.arange(len(positions)), views)
    live = sources.open_live_teacher(TASK, storage, "cpu").begin_epoch(views)(batch).prediction
    stored = sources.open_stored_teacher(TASK, storage, "train+val", "cpu").begin_epoch(views)(batch).prediction
    assert stored.dtype == live.dtype == torch.float16
    torch.testing.assert_close(stored, live, rtol=2e-3, atol=2e-3)
    kept = [select_kept_classes(outputs, batch.targets, 0.4).sort().values for outputs in (stored, live)]
    assert torch.equal(*kept)


def test_only_views_that_will_be_drawn_are_stored(storage):
    drawn = set()
    for seed, split in PLAN.runs:
        positions = TASK.positions(split)
        for epoch in range(PLAN.epochs):
            views = TASK.views.draw(seed, epoch, torch.arange(len(positions)))
            drawn |= set((positions * TASK.views.count + views).tolist())
    held = {code for path in shards(storage) for code in store.open_shard(path).codes.tolist()}
    assert held == drawn


def test_another_plan_adds_what_is_missing_and_keeps_what_is_there(tmp_path):
    prepared(TASK, tmp_path)
    before = shards(tmp_path)
    assert prepared(TASK, tmp_path) == []
    ((name, _),) = prepared(TASK, tmp_path, Plan((*PLAN.runs, (9, "train")), PLAN.epochs))
    assert name == "outputs 0–100"
    assert set(before) < set(shards(tmp_path))
    codes = torch.cat([store.open_shard(path).codes for path in shards(tmp_path)])
    assert len(codes.unique()) == len(codes)


def test_view_that_was_never_stored_is_an_error_not_a_guess(storage, tmp_path):
    with pytest.raises(LookupError, match=r"views are not in the teacher's store: run .* --retry-failed"):
        list(TASK.train(job(TASK, storage, tmp_path, seed=1234)))


def test_store_that_does_not_fit_is_refused_with_the_sum(tmp_path, monkeypatch):
    prepared(dataclasses.replace(TASK, teacher_store=False), tmp_path)

    class Full:
        f_bavail, f_frsize = 1, 10

    monkeypatch.setattr(store.os, "statvfs", lambda path: Full)
    with pytest.raises(InputError, match=r"0\.00 GB free: .*--teacher-store off"):
        TASK.list_preparations(tmp_path, PLAN)


def test_nothing_is_prepared_for_a_study_that_asks_no_teacher(tmp_path):
    assert TASK.list_preparations(tmp_path, Plan((), 3)) == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 40))
def test_blocks_cover_every_missing_pair_once_and_stay_small(counts: list[int], full: int) -> None:
    missing = torch.zeros(len(counts), 9, dtype=torch.bool)
    for sample, count in enumerate(counts):
        missing[sample, :count] = True
    output_bytes = store.SHARD_BYTES // full - store.CODE_BYTES
    spans = store.split_into_blocks(missing, output_bytes)
    covered = [sample for span in spans for sample in span]
    assert len(set(covered)) == len(covered)
    assert {sample for sample, count in enumerate(counts) if count} <= set(covered)
    per_shard = store.SHARD_BYTES // (output_bytes + store.CODE_BYTES)
    assert all(sum(counts[s] for s in span) <= max(per_shard, 9) for span in spans)


def test_files_are_as_large_as_the_disk_was_asked_for(tmp_path, monkeypatch):
    prepared(dataclasses.replace(TASK, teacher_store=False), tmp_path)
    asked = []
    monkeypatch.setattr(preparing, "check_free_space", lambda folder, size: asked.append(size))
    monkeypatch.setattr(store, "SHARD_BYTES", 4000)
    steps = TASK.list_preparations(tmp_path, PLAN)
    prepared(TASK, tmp_path)
    # a file of safetensors begins with how long its header is
    sizes = [path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little") for path in shards(tmp_path)]
    assert len(sizes) == len(steps) > 3
    assert max(sizes) <= 4000
    assert sum(sizes) == asked[0]


@given(st.integers(0, 100), st.integers(0, 100))
def test_views_drawn_of_a_block_are_those_of_the_whole_pool_there(one: int, other: int) -> None:
    block = range(*sorted((one, other)))
    assert torch.equal(
        preparing.mark_drawn(TASK, PLAN, block), preparing.mark_drawn(TASK, PLAN)[block.start : block.stop]
    )


def test_block_costs_a_blocks_share_of_the_draws(monkeypatch):
    drawn = []

    def draw(views: CropFlip, seed: int, epoch: int, samples: torch.Tensor) -> torch.Tensor:
        drawn.append(len(samples))
        return torch.zeros_like(samples)

    monkeypatch.setattr(CropFlip, "draw", draw)
    preparing.mark_drawn(TASK, Plan(((8, "train+val"),), 3), range(40, 47))
    assert drawn == [7, 7, 7]


def test_epoch_gathers_from_shards_that_lie_criss_cross(tmp_path, monkeypatch):
    """Another plan's shards begin and end elsewhere; they add what is missing, and nothing is there twice."""
    prepared(TASK, tmp_path)
    monkeypatch.setattr(store, "SHARD_BYTES", 3000)
    prepared(TASK, tmp_path, Plan(((9, "train+val"),), 3))
    monkeypatch.setattr(store, "SHARD_BYTES", 2000)
    prepared(TASK, tmp_path, Plan(((9, "train+val"), (10, "train")), 4))
    opened = [store.open_shard(path) for path in shards(tmp_path)]
    pairs = [pair for shard in opened for pair in zip(shard.codes.tolist(), shard.outputs, strict=True)]
    outputs = dict(pairs)
    assert len(opened) > 6
    assert len(outputs) == len(pairs)
    for split, seed, epoch in (("train", 10, 3), ("train+val", 9, 2), ("train", 7, 0)):
        positions = TASK.positions(split)
        samples = torch.arange(len(positions))
        views = TASK.views.draw(seed, epoch, samples)
        batch = TASK.examples(split, "cpu").batch(samples, views)
        told = sources.open_stored_teacher(TASK, tmp_path, split, "cpu").begin_epoch(views)(batch).prediction
        codes = (positions * TASK.views.count + views).tolist()
        assert torch.equal(told, torch.stack([outputs[code] for code in codes]))


def test_outputs_beyond_float16_are_an_error_that_names_the_teacher(tmp_path, monkeypatch):
    prepared(dataclasses.replace(TASK, teacher_store=False), tmp_path)
    told = Classification.outputs
    monkeypatch.setattr(Classification, "outputs", lambda *given: Outputs(1e7 * told(*given).prediction))
    with pytest.raises(InputError, match=r"teacher resnet8's outputs are not finite, or exceed 65,504"):
        prepared(TASK, tmp_path)
    assert shards(tmp_path) == []

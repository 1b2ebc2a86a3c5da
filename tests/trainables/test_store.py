"""The store of teacher outputs: what a live teacher says, for exactly the views that are drawn, damage noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study.errors import InputError
from study.trial import Plan
from tests.trainables.small import PLAN, TASK, job, metrics, prepared
from trainables import preparing, store
from trainables.losses.pruning import kept_classes


def shards(storage: Path) -> list[Path]:
    return sorted(preparing.store_folder(TASK, storage).glob("*.safetensors"))


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
    live = preparing._live(TASK, storage, "cpu").epoch(views)(batch).prediction
    stored = preparing._stored(TASK, storage, "train+val", "cpu").epoch(views)(batch).prediction
    assert stored.dtype == live.dtype == torch.float16
    torch.testing.assert_close(stored, live, rtol=2e-3, atol=2e-3)
    kept = [kept_classes(outputs, batch.targets, 0.4).sort().values for outputs in (stored, live)]
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


@pytest.mark.parametrize("spoil", ["truncate", "flip"])
def test_damaged_shard_is_noticed_and_computed_again(tmp_path, spoil):
    prepared(TASK, tmp_path)
    (path,) = shards(tmp_path)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] if spoil == "truncate" else content[:half] + b"\x55\xaa" + content[half + 2 :])
    with pytest.raises(store.DamagedShardError, match=path.name):
        store.open_shard(path)
    (step,) = TASK.preparations(tmp_path, PLAN)
    assert "damaged, computed again" in step.note
    prepared(TASK, tmp_path)
    assert path.read_bytes() == content


def test_view_that_was_never_stored_is_an_error_not_a_guess(storage, tmp_path):
    with pytest.raises(LookupError, match="views are not in the teacher's store"):
        list(TASK.train(job(TASK, storage, tmp_path, seed=1234)))


def test_store_that_does_not_fit_is_refused_with_the_sum(tmp_path, monkeypatch):
    prepared(dataclasses.replace(TASK, teacher_store=False), tmp_path)

    class Full:
        f_bavail, f_frsize = 1, 10

    monkeypatch.setattr(store.os, "statvfs", lambda path: Full)
    with pytest.raises(InputError, match=r"0\.00 GB free: .*--teacher-store off"):
        TASK.preparations(tmp_path, PLAN)


def test_nothing_is_prepared_for_a_study_that_asks_no_teacher(tmp_path):
    assert TASK.preparations(tmp_path, Plan((), 3)) == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 40))
def test_blocks_cover_every_missing_pair_once_and_stay_small(counts: list[int], full: int) -> None:
    missing = torch.zeros(len(counts), 9, dtype=torch.bool)
    for sample, count in enumerate(counts):
        missing[sample, :count] = True
    spans = store.blocks(missing, store.SHARD_BYTES // full)
    covered = [sample for span in spans for sample in span]
    assert len(set(covered)) == len(covered)
    assert {sample for sample, count in enumerate(counts) if count} <= set(covered)
    per_shard = store.SHARD_BYTES // (store.SHARD_BYTES // full)
    assert all(sum(counts[s] for s in span) <= max(per_shard, 9) for span in spans)

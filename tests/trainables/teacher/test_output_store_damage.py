"""Shards that cannot be used, damaged or of another teacher: noticed, named, and computed again, by steps alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from study.errors import InputError
from study.task import Plan
from tests.trainables.small import PLAN, TASK, job, prepared
from trainables.teacher import output_store as store
from trainables.teacher import preparation as preparing
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.training.nets import build_seeded


@pytest.fixture
def filled(storage, tmp_path) -> Path:
    """A storage of its own: the small task's teacher, and its outputs in several shards."""
    shutil.copytree(storage / "teachers", tmp_path / "teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_BYTES", 4000)
        prepared(TASK, tmp_path)
        yield tmp_path


def shards(storage: Path) -> list[Path]:
    return sorted(sources.store_folder(TASK, storage).glob("*.safetensors"))


def spoil(path: Path, how: str = "truncate") -> bytes:
    """Damage a file; returns what it was."""
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] if how == "truncate" else content[:half] + b"\x55\xaa" + content[half + 2 :])
    return content


def another_teacher(storage: Path) -> None:
    """Let a teacher of the same key have other weights, as one that was lost and trained again elsewhere."""
    shutil.rmtree(teachers.teacher_folder(storage, TASK.teacher_key))
    net = build_seeded(lambda: TASK.build(TASK.teacher.model), 5)
    teachers.save_teacher(storage, TASK.teacher_key, net.state_dict(), {"metrics": {}})


def stored_and_live(storage: Path) -> list[torch.Tensor]:
    samples = torch.arange(len(TASK.positions("train+val")))
    views = TASK.views.draw(8, 2, samples)
    batch = TASK.examples("train+val", "cpu").batch(samples, views)
    stored = sources.open_stored_teacher(TASK, storage, "train+val", "cpu")
    live = sources.open_live_teacher(TASK, storage, "cpu")
    return [source.begin_epoch(views)(batch).prediction for source in (stored, live)]


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["truncate", "flip"])
def test_damaged_shard_is_noticed_and_computed_again(filled, how):
    path = shards(filled)[1]
    content = spoil(path, how)
    with pytest.raises(store.DamagedShardError, match=path.name):
        store.open_shard(path)
    assert not TASK.is_intact(path)
    (step,) = TASK.list_preparations(filled, PLAN)
    assert f"; computed again: {path}: damaged (" in step.note
    prepared(TASK, filled)
    assert path.read_bytes() == content
    assert TASK.is_intact(path)


def test_asking_what_is_to_be_done_deletes_nothing(filled):
    """A dry run and `doctor` ask, and so does the driver of another study."""
    spoil(shards(filled)[0])
    before = {path: path.read_bytes() for path in shards(filled)}
    asked = TASK.list_preparations(filled, PLAN)
    assert {path: path.read_bytes() for path in shards(filled)} == before
    assert TASK.list_preparations(filled, PLAN) == asked != []


def test_step_removes_damage_where_its_block_begins_and_nowhere_else(filled):
    early, late = shards(filled)[1], shards(filled)[3]
    spoil(early), spoil(late)
    step, other = TASK.list_preparations(filled, PLAN)
    assert step.note == other.note
    assert f"{early} and 1 more: damaged" in step.note
    made = job(TASK, filled, filled / "c", phase="prepare", epochs=1, loss=None)
    object.__setattr__(made.trial, "config", step.config)
    list(preparing._fill_store(TASK, made))
    assert TASK.is_intact(early)
    assert late.exists()
    assert not TASK.is_intact(late)


def test_damage_to_what_a_study_does_not_draw_is_left_to_the_study_that_does(filled):
    other = Plan(((9, "train"),), 2)
    before = set(shards(filled))
    prepared(TASK, filled, other)
    path = min(set(shards(filled)) - before)
    spoil(path)
    assert TASK.list_preparations(filled, PLAN) == []
    list(TASK.train(job(TASK, filled, filled / "t", epochs=1)))
    assert path.exists()
    assert "damaged" in TASK.list_preparations(filled, other)[0].note


def test_trial_that_meets_damage_names_the_shard_and_the_way_out(filled):
    path = shards(filled)[2]
    spoil(path, "flip")
    expected = (
        rf"^\d+ of 80 views are not in .*store: {path}: damaged \(its content .*\): run .* --retry-failed, .*again$"
    )
    with pytest.raises(store.DamagedShardError, match=expected):
        list(TASK.train(job(TASK, filled, filled / "t")))


# -- another teacher ---------------------------------------------------------------------------------------------------


def test_outputs_of_another_teacher_are_computed_again_even_by_a_process_that_knew_it(filled):
    before, old = shards(filled), stored_and_live(filled)
    another_teacher(filled)
    steps = TASK.list_preparations(filled, PLAN)
    assert len(steps) == len(before)
    assert steps[0].note.endswith(f"; computed again: {before[0]} and {len(before) - 1} more: of another teacher")
    with pytest.raises(store.DamagedShardError, match=r"of another teacher: run the command again with --retry-failed"):
        list(TASK.train(job(TASK, filled, filled / "t")))
    prepared(TASK, filled)
    assert not set(before) & set(shards(filled))
    stored, live = stored_and_live(filled)
    torch.testing.assert_close(stored, live, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(stored, old[0], rtol=0.1)


def test_outputs_of_a_teacher_that_is_gone_wait_for_it_and_stay_if_it_comes_back_the_same(filled):
    before = {path: path.read_bytes() for path in shards(filled)}
    weights = teachers.teacher_folder(filled, TASK.teacher_key) / "weights.safetensors"
    sound = weights.read_bytes()
    spoil(weights)
    first, *others = TASK.list_preparations(filled, PLAN)
    assert first.name == "teacher"
    assert len(others) == len(before)
    assert "of another teacher" in others[0].note
    with pytest.raises(InputError, match=r"teachers/.* is damaged or gone: run the command again with --retry-failed"):
        list(TASK.train(job(TASK, filled, filled / "t")))
    weights.write_bytes(sound)
    assert TASK.list_preparations(filled, PLAN) == []
    assert {path: path.read_bytes() for path in shards(filled)} == before


def test_shard_of_an_earlier_version_is_computed_again(filled):
    new = shards(filled)[1]
    shard = store.open_shard(new)
    old = new.with_name(f"{new.name[:12]}-0123456789abcdef.safetensors")
    checksum = {"sha256": store._hash_tensors(shard.codes, shard.outputs)}
    old.write_bytes(safetensors.torch.save({"codes": shard.codes, "outputs": shard.outputs}, metadata=checksum))
    new.unlink()
    assert TASK.is_intact(old)
    (step,) = TASK.list_preparations(filled, PLAN)
    assert step.note.endswith(f"{old}: of another teacher")
    prepared(TASK, filled)
    assert new.exists()
    assert not old.exists()

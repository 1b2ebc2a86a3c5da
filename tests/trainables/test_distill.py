"""The training loop on digits: deterministic, resumable to the bit, honest about splits. And teachers from files."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import islice

import numpy as np
import pytest
import safetensors.torch
import torch

from study.errors import InputError
from study.task import TrialNote
from study.trial import Link
from tests.trainables.small import LP, PLAN, TASK, job, metrics, prepared
from trainables.data.cifar import Cifar
from trainables.distill import start_training, train_epoch
from trainables.evaluation import evaluate
from trainables.losses.logits.dkd import DKD
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import NO_TEACHER, Outputs
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training import checkpoint
from trainables.training.distributed import BatchShard, ProcessGroup
from trainables.training.nets import build_seeded
from trainables.training.recipe import Recipe


def test_same_seed_gives_bitwise_equal_metrics_and_another_seed_does_not(storage, tmp_path):
    live = dataclasses.replace(TASK, teacher_store=False)
    first, again, other = (
        metrics(list(live.train(job(live, storage, tmp_path / name, seed=seed))))
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert first == again != other


@pytest.mark.gpu
def test_same_seed_gives_bitwise_equal_metrics_on_a_gpu(storage, tmp_path):
    live = dataclasses.replace(TASK, teacher_store=False)
    first, again = (
        metrics(list(live.train(dataclasses.replace(job(live, storage, tmp_path / name), device="cuda"))))
        for name in ("a", "b")
    )
    assert first == again


def test_trial_resumed_after_any_epoch_equals_one_never_stopped(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    for stop in (1, 2):
        folder = tmp_path / f"cut{stop}"
        rows = TASK.train(job(TASK, storage, folder))
        head = [next(rows) for _ in range(stop)]
        rows.close()
        tail = list(TASK.train(job(TASK, storage, folder, recorded=stop)))
        assert metrics(head + tail) == whole


def train_link(storage, source, target, start, end, **changes):
    """Train a part of a run from a copy of the checkpoint in `source`; return its rows."""
    if source is not None:
        shutil.copytree(source, target)
    context = job(TASK, storage, target, recorded=start, **changes)
    trial = dataclasses.replace(context.trial, link=Link(0, start, end, "parent"))
    rows = TASK.train(dataclasses.replace(context, trial=trial))
    return [next(rows) for _ in range(start, end)]


def test_chain_of_copies_equals_one_undisturbed_run(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    first = train_link(storage, None, tmp_path / "a", 0, 1)
    second = train_link(storage, tmp_path / "a", tmp_path / "b", 1, 3)
    assert metrics(first + second) == whole
    other = train_link(storage, tmp_path / "a", tmp_path / "c", 1, 3, loss=DKD(beta=8.0))
    assert metrics(first + other)[1:] != whole[1:]
    assert checkpoint.load(tmp_path / "a")["epoch"] == 1


def test_link_without_its_parents_checkpoint_does_not_start_over(storage, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds epoch 0; this trial continues from 1"):
        train_link(storage, None, tmp_path / "a", 1, 3)


def test_epochs_trained_but_not_recorded_are_told_again_not_trained_again(storage, tmp_path):
    rows = TASK.train(job(TASK, storage, tmp_path))
    first, second = next(rows), next(rows)
    rows.close()
    retold = TASK.train(job(TASK, storage, tmp_path, recorded=1))
    assert next(retold) == second
    assert first["epoch"] == 1


def test_damaged_checkpoint_costs_time_and_changes_nothing(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    rows = TASK.train(job(TASK, storage, tmp_path / "cut"))
    next(rows)
    rows.close()
    state = tmp_path / "cut" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.warns(TrialNote, match=r"state\.pt is damaged .* starts again from its first epoch"):
        assert metrics(list(TASK.train(job(TASK, storage, tmp_path / "cut")))) == whole


def test_search_never_reads_test_and_confirm_reads_it_at_the_last_epoch_only(storage, tmp_path):
    search = metrics(list(TASK.train(job(TASK, storage, tmp_path / "search"))))
    confirm = metrics(
        list(TASK.train(job(TASK, storage, tmp_path / "c", phase="confirm", train_on="train+val", seed=8)))
    )
    assert all("val/accuracy" in row and "test/accuracy" not in row for row in search)
    assert ["test/accuracy" in row for row in confirm] == [False, False, True]
    assert all("val/accuracy" not in row for row in confirm), "there is no validation when it is trained on"


def test_confirm_with_validation_apart_also_records_the_best_validation_epoch(storage, tmp_path):
    rows = metrics(list(TASK.train(job(TASK, storage, tmp_path, phase="confirm", train_on="train", epochs=4))))
    scores = [row["val/accuracy"] for row in rows]
    assert rows[-1]["best_val_epoch"] == 1 + scores.index(max(scores))
    if rows[-1]["best_val_epoch"] == 4:
        assert rows[-1]["test_at_best_val/accuracy"] == rows[-1]["test/accuracy"]
    state = checkpoint.load(tmp_path)
    assert state is not None
    net = TASK.build(ResNet(8, width=4))
    net.load_state_dict(state["best_state"])
    assert evaluate(TASK, net, "test", "cpu")["test/accuracy"] == rows[-1]["test_at_best_val/accuracy"]
    net.load_state_dict(state["net"])
    assert evaluate(TASK, net, "test", "cpu")["test/accuracy"] == rows[-1]["test/accuracy"]


def test_arms_of_one_seed_start_from_the_same_weights(storage):
    first, second, other = (
        build_seeded(lambda: ResNet(8, width=4).build(1, 10), seed).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_splits_share_no_image_and_train_with_val_is_both():
    train, val, both = (TASK.examples(split, "cpu").images for split in ("train", "val", "train+val"))
    assert (len(train), len(val), len(both)) == (80, 20, 100)
    as_set = [{image.numpy().tobytes() for image in images} for images in (train, val, both)]
    assert as_set[0].isdisjoint(as_set[1])
    assert as_set[0] | as_set[1] == as_set[2]


def test_schedules_are_on_record(storage, tmp_path):
    rows = list(TASK.train(job(TASK, storage, tmp_path)))
    assert [row["schedules"]["pruning"] for row in rows] == pytest.approx([0.0, 0.2, 0.4])
    assert all(row["schedules"]["learning_rate"] > 0 for row in rows)


def test_loss_that_is_not_finite_names_its_epoch(storage, tmp_path):
    hot = dataclasses.replace(TASK, recipe=Recipe(batch_size=32, learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"training loss is (nan|inf) in epoch 1"):
        list(hot.train(job(hot, storage, tmp_path, loss=NoDistillation())))


def test_teacher_is_kept_by_content_and_found_again(storage):
    assert TASK.list_preparations(storage, PLAN) == []
    assert 0 < teachers.read_record(storage, TASK.teacher_key)["metrics"]["test/accuracy"] <= 1
    other = dataclasses.replace(TASK, teacher=dataclasses.replace(TASK.teacher, epochs=3))
    assert [step.name for step in other.list_preparations(storage, PLAN)] == ["teacher", "outputs 0–100"]
    resplit = dataclasses.replace(TASK, split_seed=1)
    assert resplit.list_preparations(storage, PLAN), "another split would have shown the teacher validation images"


def test_distances_to_the_teacher_are_the_kl_and_the_l2_of_the_logits(storage, tmp_path):
    """P1, figure 3 plots the L2 distance; both are recorded by arms with a teacher alone."""
    student, teacher = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(0))
    kl, l2 = TASK.measure_distances(Outputs(student), Outputs(teacher.half()))
    p, q = teacher.half().double().softmax(1).numpy(), student.double().softmax(1).numpy()
    assert kl.item() == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-5)
    squares = (student.numpy() - teacher.half().numpy().astype(np.float32)) ** 2
    assert l2.item() == pytest.approx(np.sqrt(squares.sum(axis=1)).mean(), rel=1e-6)
    assert TASK.measure_distances(Outputs(student), Outputs(student))[1].item() == 0
    taught = metrics(list(TASK.train(job(TASK, storage, tmp_path / "taught", loss=DKD()))))
    alone = metrics(list(TASK.train(job(TASK, storage, tmp_path / "alone", loss=NoDistillation()))))
    names = {"train/teacher_distance", "train/teacher_l2"}
    assert all(names <= row.keys() for row in taught)
    assert not any(names & row.keys() for row in alone)
    assert names <= TASK.metrics.keys()


@pytest.mark.parametrize("form", ["safetensors", "pth", "published"])
def test_teacher_from_a_file_scores_like_the_net_it_was_saved_from(storage, tmp_path, form):
    kept = teachers.teacher_folder(storage, TASK.teacher_key) / "weights.safetensors"
    state = safetensors.torch.load_file(kept)
    path = tmp_path / ("t.safetensors" if form == "safetensors" else "t.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        published = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
        torch.save(state if form == "pth" else published, path)
    task = dataclasses.replace(TASK, teacher=Teacher(ResNet(8), weights=path))
    (name, (row,)), *_ = prepared(task, tmp_path)
    assert name == "teacher"
    expected = teachers.read_record(storage, TASK.teacher_key)["metrics"]
    assert row["metrics"]["test/accuracy"] == expected["test/accuracy"]
    assert teachers.read_record(tmp_path, task.teacher_key)["source"] == f"file {path.name}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("fc.bias"), "of another architecture: it lacks 'fc.bias'"),
        (lambda state: state.update(extra=torch.zeros(1)), "of another architecture: it has 'extra'"),
        (lambda state: state.update({"fc.bias": torch.zeros(100)}), r"it has 100 outputs, .* need 10 \(fc.bias is"),
        (lambda state: state["conv1.weight"].fill_(float("nan")), "not finite, in conv1.weight"),
    ],
)
def test_teacher_file_that_does_not_fit_is_refused_before_anything_starts(storage, tmp_path, spoil, message):
    state = safetensors.torch.load_file(teachers.teacher_folder(storage, TASK.teacher_key) / "weights.safetensors")
    spoil(state)
    torch.save(state, tmp_path / "t.pth")
    task = dataclasses.replace(TASK, teacher=Teacher(ResNet(8), weights=tmp_path / "t.pth"))
    with pytest.raises(InputError, match=message):
        task.check((ResNet(8, width=4),), (LP,), tmp_path)


def test_teacher_file_that_cannot_be_read_is_refused(tmp_path):
    task = dataclasses.replace(TASK, teacher=Teacher(ResNet(8), weights=tmp_path / "t.pth"))
    with pytest.raises(InputError, match=r"t\.pth does not exist"):
        task.check((), (), tmp_path)
    (tmp_path / "t.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read"):
        task.check((), (), tmp_path)


def test_check_tries_every_loss_and_student_on_the_data(tmp_path):
    with pytest.raises(InputError, match="temperature is 0"):
        TASK.check((ResNet(8),), (DKD(temperature=0.0),), tmp_path)
    said = TASK.check((ResNet(8),), (LP,), tmp_path)
    assert said["data"]["train"] == 80
    assert said["data"]["classes"] == 10


def test_relative_paths_hold_wherever_a_worker_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Cifar(10, "data").root == tmp_path / "data"
    assert Teacher(ResNet(8), weights="t.pth").weights == tmp_path / "t.pth"


class ExamplesCutAhead:
    """Examples that take two batches ahead of the one that they form, and note what was announced."""

    def __init__(self, examples):
        self.examples, self.announced = examples, []

    def __len__(self):
        return len(self.examples)

    def prefetch(self, batches):
        self.coming = iter(batches)
        self.announced += [samples for samples, _ in islice(self.coming, 2)]

    def batch(self, samples, views):
        assert torch.equal(self.announced.pop(0), samples)
        self.announced += [samples for samples, _ in islice(self.coming, 1)]
        return self.examples.batch(samples, views)


class HalfGroup(ProcessGroup):
    """One of two workers, without the other: it trains on the first half of each batch."""

    def __init__(self):
        super().__init__()
        self.sharded = []

    def cut_batch(self, samples):
        half = samples[: len(samples) // 2]
        return BatchShard(half, len(half) / len(samples), 0, len(samples))

    def shard_batch(self, samples):
        self.sharded.append(samples)
        return self.cut_batch(samples)


def test_batches_are_announced_ahead_and_sharded_in_their_turn(storage, tmp_path):
    context, group, loss = job(TASK, storage, tmp_path / "one"), HalfGroup(), NoDistillation()
    training = start_training(TASK, context, group, lambda: TASK.build(ResNet(8, width=4)), Recipe(33), loss)
    examples = ExamplesCutAhead(TASK.examples("train", "cpu"))
    train_epoch(training, examples, NO_TEACHER, 0)
    assert not examples.announced
    assert sorted(torch.cat(group.sharded).tolist()) == list(range(len(examples)))  # each batch once, none ahead

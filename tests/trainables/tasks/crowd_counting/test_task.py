"""The crowd task under the shared loop: crops, counts, store and live alike."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from study.task import Plan
from tests.trainables.data.test_shanghaitech import part_a
from tests.trainables.small import metrics, prepared
from tests.trainables.small_crowds import FALLING, STUDENT, TASK, job
from trainables.data.shanghaitech import ShanghaiTech
from trainables.evaluation import evaluate
from trainables.losses.density import DensityDistillation, density_mse
from trainables.losses.none import NoDistillation
from trainables.models.msfanet import MSFANet
from trainables.task import Batch, Outputs
from trainables.tasks.crowd_counting.examples import CrowdTargets
from trainables.tasks.crowd_counting.metrics import CountErrors
from trainables.tasks.crowd_counting.task import CrowdCounting, group_by_count
from trainables.teacher import sources
from trainables.teacher import weights as teachers
from trainables.training.views import GridCrops

PLAN = Plan(((7, "train"), (8, "train+val")), epochs=3)
NOTHING = torch.zeros(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Path:
    """A storage with the small task's teacher and its maps."""
    path = tmp_path_factory.mktemp("crowds")
    prepared(TASK, path, PLAN)
    return path


# -- training


@pytest.mark.parametrize(("phase", "train_on", "seed"), [("search", "train", 7), ("confirm", "train+val", 8)])
def test_training_with_the_store_agrees_with_a_live_teacher(storage, tmp_path, phase, train_on, seed):
    """Within float16 rounding: a live teacher sees other batches, whose convolutions may round another way."""
    rows = {}
    for task in (TASK, TASK.with_live_teacher()):
        wanted = job(task, storage, tmp_path / str(task.teacher_store), phase=phase, train_on=train_on, seed=seed)
        rows[task.teacher_store] = metrics(list(task.train(wanted)))
    for stored, live in zip(rows[True], rows[False], strict=True):
        assert stored == pytest.approx(live, rel=2e-3)


def test_stored_maps_are_the_live_ones(storage):
    samples = torch.arange(16)
    views = TASK.views.draw(8, 2, samples)
    batch = TASK.examples("train+val", "cpu").batch(samples, views)
    live = sources.open_live_teacher(TASK, storage, "cpu").begin_epoch(views)(batch).prediction
    stored = sources.open_stored_teacher(TASK, storage, "train+val", "cpu").begin_epoch(views)(batch).prediction
    assert stored.dtype == torch.float16
    assert stored.shape == (16, 1, 16, 16)
    assert stored.nbytes == 16 * TASK.stored_output_bytes
    torch.testing.assert_close(stored, live, rtol=2e-3, atol=2e-3)


def test_trial_resumed_after_an_epoch_equals_one_never_stopped(storage, tmp_path):
    whole = metrics(list(TASK.train(job(TASK, storage, tmp_path / "whole"))))
    rows = TASK.train(job(TASK, storage, tmp_path / "cut"))
    head = [next(rows)]
    rows.close()
    tail = list(TASK.train(job(TASK, storage, tmp_path / "cut", recorded=1)))
    assert metrics(head + tail) == whole


def test_alpha_of_zero_trains_as_no_distillation_does(storage, tmp_path):
    none, zero = (
        metrics(list(TASK.train(job(TASK, storage, tmp_path / name, loss=loss, epochs=2))))
        for name, loss in (("none", NoDistillation()), ("zero", DensityDistillation(0.0)))
    )
    distances = [row.pop("train/teacher_distance") for row in zero]  # what no arm without a teacher can know
    assert none == zero
    assert min(distances) > 0
    half = metrics(list(TASK.train(job(TASK, storage, tmp_path / "half", loss=DensityDistillation(0.5), epochs=2))))
    assert half != none


def test_search_reads_no_test_and_the_lowest_validation_error_is_the_best(storage, tmp_path):
    search = metrics(list(TASK.train(job(TASK, storage, tmp_path / "search", epochs=2))))
    assert all("val/mae" in row and "test/mae" not in row for row in search)
    confirm = list(TASK.train(job(TASK, storage, tmp_path / "confirm", phase="confirm", train_on="train")))
    scores = [row["metrics"]["val/mae"] for row in confirm]
    assert confirm[-1]["metrics"]["best_val_epoch"] == 1 + scores.index(min(scores))
    assert confirm[-1]["metrics"].keys() <= TASK.metrics.keys()
    assert [row["schedules"]["alpha"] for row in confirm] == pytest.approx([0.7, 0.35, 0.0])


def test_teacher_learns_attention_too(storage):
    batch = TASK.examples("train", "cpu").batch(torch.arange(4), TASK.views.draw(0, 0, torch.arange(4)))
    net = TASK.build(MSFANet(4))
    said = TASK.outputs(net, batch)
    both = TASK.task_loss(said, batch)
    people = (batch.targets.density / TASK.density_scale > 0.001).double().numpy()
    p = said.features["attention"].detach().double().numpy()
    entropy = -(people * np.log(p) + (1 - people) * np.log(1 - p)).mean()
    weight = TASK.attention_weight * TASK.density_scale
    alone = density_mse(said.prediction, batch.targets.density)
    assert (both - alone).item() == pytest.approx(weight * entropy, rel=1e-4)
    assert 0 < people.mean() < 1
    assert teachers.read_record(storage, TASK.teacher_key)["metrics"]["test/mae"] > 0


def test_attention_reaches_shared_layers_as_in_the_unscaled_recipe():
    """At the beginning, where a net says next to nothing: the ratio of both gradients, whatever the scale."""
    ratios = []
    for scale in (1.0, 100.0):
        task = dataclasses.replace(TASK, density_scale=scale)
        batch = task.examples("train", "cpu").batch(torch.arange(12), task.views.draw(0, 0, torch.arange(12)))
        torch.manual_seed(0)
        net = task.build(MSFANet(4))
        said = task.outputs(net, batch)
        density = density_mse(said.prediction, batch.targets.density)
        parts = density, task.task_loss(said, batch) - density
        shared = [*net.vgg.parameters(), *net.context.parameters(), *net.aspp.parameters()]
        gradients = [torch.autograd.grad(part, shared, retain_graph=True) for part in parts]
        density_size, attention_size = (torch.cat([g.flatten() for g in part]).norm() for part in gradients)
        ratios.append(float(attention_size / density_size))
    assert ratios[1] == pytest.approx(ratios[0], rel=0.3)


def test_store_asks_about_many_views_at_once(tmp_path, storage, monkeypatch):
    asked = []

    def outputs(task, net, batch):
        asked.append(len(batch.samples))
        return answered(task, net, batch)

    answered = CrowdCounting.outputs
    monkeypatch.setattr(CrowdCounting, "outputs", outputs)
    shutil.copytree(storage / "teachers", tmp_path / "teachers")
    prepared(TASK, tmp_path, Plan(((7, "train+val"),), epochs=1))
    assert asked == [8, 8]


# -- examples


def test_whole_images_carry_every_annotated_head_and_all_of_its_density():
    examples, scenes = TASK.examples("test", "cpu"), TASK.loaded.test
    for sample, scene in enumerate(scenes):
        batch = examples.batch(torch.tensor([sample]), torch.tensor([0]))
        assert float(batch.targets.counts) == scene.count
        assert float(batch.targets.density.sum()) / TASK.density_scale == pytest.approx(scene.count, rel=1e-5)
        assert batch.inputs.shape == (1, 3, 48, 64), "40 × 56, padded to multiples of 16"


def test_padding_is_the_mean_colour_and_has_no_density():
    batch = TASK.examples("test", "cpu").batch(torch.tensor([0]), torch.tensor([0]))
    assert batch.inputs[:, :, 40:].abs().max() < 0.01
    assert batch.inputs[:, :, :, 56:].abs().max() < 0.01
    assert batch.targets.density[:, :, 20:].abs().max() == 0
    assert batch.targets.density[:, :, :, 28:].abs().max() == 0


def test_crops_show_image_map_and_heads_of_the_same_place():
    examples = TASK.examples("train", "cpu")
    whole = examples.batch(torch.tensor([0]), torch.tensor([0]))
    for view in range(1, TASK.views.count):
        crop = examples.batch(torch.tensor([0]), torch.tensor([view]))
        top, left = TASK.views.locate_crop(view, 48, 64)
        window = whole.inputs[:, :, top : top + 32, left : left + 32]
        below = whole.targets.density[:, :, top // 2 : top // 2 + 16, left // 2 : left // 2 + 16]
        mirrored = view > 4
        assert torch.equal(crop.inputs, window.flip(3) if mirrored else window)
        assert torch.equal(crop.targets.density, below.flip(3) if mirrored else below)
        x, y = examples.heads[0].T
        inside = (x >= left) & (x < left + 32) & (y >= top) & (y < top + 32)
        assert float(crop.targets.counts) == int(inside.sum())


def test_splits_share_no_image_and_train_with_val_is_both():
    train, val, both, test = (TASK.examples(split, "cpu") for split in ("train", "val", "train+val", "test"))
    assert (len(train), len(val), len(both), len(test)) == (12, 4, 16, 6)
    seen = [{image.numpy().tobytes() for image in split.images} for split in (train, val, both)]
    assert seen[0].isdisjoint(seen[1])
    assert seen[0] | seen[1] == seen[2]
    other = dataclasses.replace(TASK, split_seed=1)
    assert other.positions("val").tolist() != TASK.positions("val").tolist()
    assert other.teacher_key != TASK.teacher_key


def test_validation_has_one_photograph_of_each_group_of_similar_counts():
    counts = np.array([scene.count for scene in TASK.loaded.train])
    ranks = np.argsort(np.argsort(counts, kind="stable"))
    for seed in range(5):
        held = dataclasses.replace(TASK, split_seed=seed).positions("val").numpy()
        assert sorted(ranks[held] // 4) == [0, 1, 2, 3]


def test_groups_of_similar_counts_have_equal_sizes():
    counts = np.array([900, 33, 33, 3139, 120, 500, 70])
    assert group_by_count(counts, 3).tolist() == [2, 0, 0, 2, 1, 1, 0]
    assert np.bincount(group_by_count(np.arange(300)[::-1], 30)).tolist() == 30 * [10]


def test_training_splits_share_the_pools_images_and_maps():
    train, val, both = (TASK.examples(split, "cpu") for split in ("train", "val", "train+val"))
    for name in ("images", "densities", "heads"):
        shared = {id(tensor) for split in (train, val) for tensor in getattr(split, name)}
        assert shared == {id(tensor) for tensor in getattr(both, name)}
    assert TASK.examples("test", "cpu").images[0] is not both.images[0]


def test_folder_of_awkward_scenes_trains_and_scores(tmp_path):
    data = ShanghaiTech(part_a(tmp_path / "part_A"))
    task = dataclasses.replace(TASK, data=data, validation=2, views=GridCrops(48, rows=1, columns=2))
    said = task.check((STUDENT,), (FALLING,), tmp_path)["data"]
    assert (said["name"], said["train"], said["val"], said["test"]) == ("ShanghaiTech A", 3, 2, 5)
    assert said["complete"] is False
    rows = metrics(list(task.train(job(task, tmp_path, tmp_path / "x", loss=NoDistillation(), epochs=1))))
    assert np.isfinite(rows[-1]["val/mae"])
    assert np.isfinite(evaluate(task, task.build(STUDENT), "test", "cpu")["test/rmse"])
    examples = task.examples("train+val", "cpu")
    sizes = [tuple(image.shape[1:]) for image in examples.images]
    assert sizes == [(48, 48), (48, 48), (48, 64), (48, 48), (48, 48)], "of 48 at least, and multiples of 16"
    counts = [float(examples.batch(torch.tensor([n]), torch.tensor([0])).targets.counts) for n in range(5)]
    assert counts == [2, 1, 0, 4, 4]


# -- metrics


def test_errors_are_of_counts_one_per_image():
    meters = CountErrors(density_scale=100.0, device="cpu")
    predicted, annotated = np.array([10.0, 30.5, 0.0]), np.array([12.0, 30.0, 1.0])
    for said, true in zip(predicted, annotated, strict=True):
        density = torch.full((1, 1, 4, 5), float(said) * 100 / 20)
        targets = CrowdTargets(torch.full((1, 1, 8, 10), 99.0), torch.tensor([float(true)]))
        meters.update(Outputs(density), Batch(torch.zeros(1), targets, NOTHING, NOTHING))
    error = predicted - annotated
    expected = {"mae": np.abs(error).mean(), "rmse": np.sqrt((error**2).mean())}
    assert meters.compute() == pytest.approx(expected, rel=1e-5)


def test_density_scale_does_not_move_the_metrics(tmp_path):
    net = TASK.build(STUDENT)
    before = evaluate(TASK, net, "test", "cpu")
    for parameter in net.fuse.parameters():
        parameter.data *= 3
    tripled = dataclasses.replace(TASK, density_scale=300.0)
    assert evaluate(tripled, net, "test", "cpu") == pytest.approx(before, rel=1e-4)

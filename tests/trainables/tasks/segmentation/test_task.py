"""Segmentation of one's own images: pixels without a class, own nets, features, crops; what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from study.errors import InputError
from study.identity import describe
from tests.trainables import small
from tests.trainables.small import metrics, prepared
from tests.trainables.small_masks import FRAME, write_folder
from trainables.data.arrays.label_maps import ClassTable
from trainables.data.digits import Digits
from trainables.data.segmentation_folder import SegmentationFolder
from trainables.export.restore import TrainedTrial, restore_student
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.common.row_blocks import mean_cross_entropy
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.logits.kd import KD
from trainables.losses.none import NoDistillation
from trainables.losses.pixels.pixel_dkd import PixelDKD
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.models.net_function import Net
from trainables.models.segmentation import SmallFCN
from trainables.task import IGNORED, Batch, Outputs
from trainables.tasks.segmentation.examples import view_labels
from trainables.tasks.segmentation.metrics import SegmentationScores
from trainables.tasks.segmentation.task import Segmentation
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine, Progress
from trainables.training.views import CropFlip, Flips

NOTHING = torch.zeros(0, dtype=torch.int64)
RECIPE = Recipe(4, Cosine(2e-2), Adam())
START = Progress(0, 1)


def make_net(classes: int, width: int = 4) -> nn.Module:
    """Return a net that keeps the images' resolution."""
    return nn.Sequential(
        OrderedDict(first=nn.Conv2d(3, width, 3, padding=1), relu=nn.ReLU(), last=nn.Conv2d(width, classes, 1))
    )


class Dictionary(nn.Module):
    """A net that returns its logits as torchvision's nets for segmentation do."""

    def __init__(self, classes: int):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 1)

    def forward(self, x):
        return {"out": self.layer(x)}


def make_dictionary(classes: int) -> nn.Module:
    return Dictionary(classes)


def make_vector(classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))


TEACHER, STUDENT = Net(make_net, {"width": 8}, taps=("relu",)), Net(make_net, taps=("relu",))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        root = write_folder(tmp_path_factory.mktemp("boxes") / "boxes", 30)
        yield SegmentationFolder(root, ("floor", "box"), ignore=FRAME, size=16, val=0.2)


@pytest.fixture(scope="module")
def task(data):
    return Segmentation(data, Teacher(TEACHER, RECIPE, epochs=4), RECIPE)


def job(task, storage, folder, student=STUDENT, **settings):
    return dataclasses.replace(small.job(task, storage, folder, **settings), student=student)


# -- pixels without a class


def labels_and_logits():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 8, 8), generator=generator)
    labels[:, :2] = IGNORED
    return labels, torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)


def test_cross_entropy_of_ignored_pixels_is_zero_and_so_is_their_gradient():
    labels, logits = labels_and_logits()
    loss = mean_cross_entropy(logits, labels)
    full = upsample_logits(logits, (8, 8))
    expected = F.cross_entropy(full, labels, ignore_index=IGNORED, reduction="sum") / labels.numel()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (loss, expected)))


@pytest.mark.parametrize("resolution", ["full", "student"])
def test_dkd_of_ignored_pixels_is_zero(resolution):
    labels, logits = labels_and_logits()
    student, teacher = Outputs(logits), Outputs(logits.detach().flip(1))
    loss = PixelDKD(resolution=resolution)
    whole = loss(student, teacher, labels.clamp(max=2), START)
    counted = loss(student, teacher, labels, START)
    assert counted.isfinite()
    assert 0 < counted < whole
    none = loss(student, teacher, torch.full_like(labels, IGNORED), START)
    assert none == 0
    assert torch.autograd.grad(none, logits)[0].abs().max() == 0


def test_scores_leave_ignored_pixels_out():
    labels, logits = labels_and_logits()
    table = ClassTable(("a", "b", "c"))
    meter = SegmentationScores(table, "cpu")
    meter.update(Outputs(logits.detach()), Batch(torch.empty(0), labels, NOTHING, NOTHING))
    scores = meter.compute()
    predicted = upsample_logits(logits.detach(), (8, 8)).argmax(1)
    is_counted = labels != IGNORED
    assert scores["accuracy"] == pytest.approx(float((predicted == labels)[is_counted].float().mean()))
    hits = [int(((predicted == k) & (labels == k)).sum()) for k in range(3)]
    f1 = [2 * hit / int(((predicted == k) & is_counted).sum() + (labels == k).sum()) for k, hit in enumerate(hits)]
    assert [scores[f"class_f1_{name}"] for name in "abc"] == pytest.approx(f1)
    assert scores["f1"] == pytest.approx(np.mean(f1))
    assert "f1_all" not in scores


def test_means_over_no_label_are_nan():
    meter = SegmentationScores(ClassTable(("a", "b")), "cpu")
    labels = torch.full((1, 4, 4), IGNORED)
    meter.update(Outputs(torch.zeros(1, 2, 4, 4)), Batch(torch.empty(0), labels, NOTHING, NOTHING))
    assert meter.compute() == pytest.approx(dict.fromkeys(("f1", "miou", "accuracy"), np.nan), nan_ok=True)


def test_cropped_labels_move_with_their_images_and_are_ignored_outside():
    views, mirrored = CropFlip(padding=2, flip=True), torch.tensor(ClassTable(("a", "b"), None, (("a", "b"),)).mirror())
    labels = torch.randint(0, 2, (50, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels[:, 3, 3] = IGNORED
    numbers = torch.arange(50)
    moved = view_labels(views, labels, numbers, mirrored)
    # images whose pixels are 1 + the label, so that the zeros outside can be told from labels
    images = torch.where(labels == IGNORED, 9, labels + 1)[:, None].to(torch.uint8)
    shown = views.apply(images, numbers)[:, 0].long()
    expected = torch.where((shown == 0) | (shown == 9), IGNORED, shown - 1)
    swapped = torch.where(expected == IGNORED, IGNORED, 1 - expected)
    assert torch.equal(moved, torch.where(views.is_mirrored(numbers)[:, None, None], swapped, expected))
    assert (moved[1:] == IGNORED).sum() > 49


# -- training


def test_own_nets_learn_from_own_masks_with_losses_on_logits_and_on_features(task, tmp_path):
    losses = (NoDistillation(), PixelKD(), PixelDKD(), FeatureMatching(adapter=None))
    wide = dataclasses.replace(task, teacher=Teacher(Net(make_net, taps=("relu",)), RECIPE, epochs=4))
    record = wide.check((STUDENT,), losses, tmp_path)
    assert record["data"]["class_names"] == ["floor", "box"]
    prepared(wide, tmp_path)
    for loss in losses:
        context = job(
            wide, tmp_path, tmp_path / type(loss).__name__, loss=loss, phase="confirm", train_on="train", seed=8
        )
        rows = metrics(list(wide.train(context)))
        assert rows[-1]["train/task_loss"] < rows[0]["train/task_loss"]
        assert {"test/f1", "test/miou", "test/accuracy", "test/class_f1_box"} <= rows[-1].keys() <= wide.metrics.keys()
    with np.load(tmp_path / "NoDistillation" / "exhibits.npz") as file:
        about = json.loads(str(file["about"]))
        assert next(one["classes"] for one in about if one["name"] == "true labels") == ["floor", "box", "ignored"]
        assert set(np.unique(file["0/1"])) == {0, 1, 2}


def test_size_of_stored_outputs_of_own_nets_is_measured(task):
    assert task.output_bytes == 2 * 2 * 16 * 16
    assert dataclasses.replace(task, teacher=Teacher(SmallFCN(2))).output_bytes == 2 * 2 * 4 * 4


def test_net_may_return_a_dictionary_as_torchvisions_do(task, tmp_path):
    task.check((Net(make_dictionary),), (PixelKD(),), tmp_path)


def test_class_table_decides_the_scores(task, data):
    assert [score.name for score in task.scores] == ["f1", "miou", "accuracy", "class_f1_floor", "class_f1_box"]
    other = dataclasses.replace(task, data=dataclasses.replace(data, background="floor"))
    assert [score.name for score in other.train_scores] == ["f1", "f1_all", "miou", "accuracy"]
    assert other.teacher_key != task.teacher_key


def test_export_carries_the_names_of_the_classes(task, data, tmp_path):
    context = job(task, tmp_path, tmp_path / "t", loss=NoDistillation(), student=SmallFCN(2), epochs=1)
    rows = list(task.train(context))
    config = {"task": describe(task), "student": describe(SmallFCN(2)), "inputs": {"data": task.loaded.fingerprint}}
    config["task"]["teacher"] = describe(Teacher(SmallFCN(2)))  # not a function of this file
    trained = TrainedTrial(config, tmp_path / "t", {"val/f1": rows[-1]["metrics"]["val/f1"]})
    assert json.loads(restore_student(trained, data.root).metadata["classes"]) == ["floor", "box"]


# -- what is refused


def test_net_of_another_output_is_refused(task, tmp_path):
    with pytest.raises(
        InputError, match=r"a net returns a tensor \(1, 2\) for images .*; needed are logits \(B, 2, h, w\)"
    ):
        task.check((Net(make_vector),), (NoDistillation(),), tmp_path)


def test_loss_on_logits_of_images_is_refused(task, tmp_path):
    with pytest.raises(InputError, match="KD compares the classes of images, not of pixels; allowed are PixelKD"):
        task.check((STUDENT,), (KD(),), tmp_path)


def test_data_without_a_class_table_are_refused(tmp_path):
    task = Segmentation(Digits(train=80), Teacher(SmallFCN(2)), RECIPE)
    with pytest.raises(InputError, match="Segmentation takes no Digits, which has no class_table"):
        _ = task.scores


def test_views_may_be_crops(data, tmp_path):
    task = Segmentation(data, Teacher(SmallFCN(2), RECIPE, epochs=1), RECIPE, CropFlip(padding=2, flip=False))
    prepared(task, tmp_path)
    rows = metrics(list(task.train(job(task, tmp_path, tmp_path / "t", student=SmallFCN(2), loss=PixelKD()))))
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert Flips().count < task.views.count

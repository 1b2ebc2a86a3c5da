"""Regression of numbers and of points: units, views that move points, losses that fit, what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from study.errors import InputError
from study.identity import describe
from tests.trainables import small
from tests.trainables.data.test_image_targets import write_table
from tests.trainables.small import metrics, prepared
from trainables.data.arrays.image_targets import TargetTable
from trainables.data.digits import Digits
from trainables.data.image_targets import ImageNumbers, ImagePoints
from trainables.export.restore import TrainedTrial, restore_student
from trainables.losses.features.attention import AttentionTransfer
from trainables.losses.features.feature_matching import FeatureMatching
from trainables.losses.features.rkd import RKD
from trainables.losses.logits.kd import KD
from trainables.losses.none import NoDistillation
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.losses.prediction_matching import PredictionMatching
from trainables.models.net_function import Net
from trainables.models.resnet_cifar import ResNet
from trainables.task import Batch, Outputs
from trainables.tasks.regression.examples import view_points
from trainables.tasks.regression.metrics import RegressionScores, define_scores
from trainables.tasks.regression.task import Regression
from trainables.teacher.weights import Teacher
from trainables.training.random_views import ResizedCrops
from trainables.training.recipe import Adam, Recipe
from trainables.training.schedules import Cosine, Progress
from trainables.training.views import CropFlip

RECIPE = Recipe(8, Cosine(1e-2), Adam())
NOTHING = torch.zeros(0, dtype=torch.int64)


def make_net(channels: int, classes: int, width: int = 8) -> nn.Module:
    conv = nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU())
    return nn.Sequential(conv, nn.Flatten(), nn.Linear(16 * width, classes))


def make_map(channels: int, classes: int) -> nn.Module:
    return nn.Conv2d(channels, classes, 1)


TEACHER, STUDENT = Net(make_net, {"width": 16}, taps=("0",)), Net(make_net, taps=("0",))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Dark images with a bright spot of 2 × 2 pixels; the table has its place and the brightness of the rest."""
    folder, rows = tmp_path_factory.mktemp("spots"), []
    generator = np.random.default_rng(0)
    for number in range(60):
        shade, x, y = int(generator.integers(10, 100)), *(int(value) for value in generator.integers(0, 7, 2))
        pixels = np.full((8, 8), shade, dtype=np.uint8)
        pixels[y : y + 2, x : x + 2] = 250
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        split = "train" if number < 40 else "val" if number < 50 else "test"
        rows.append({"path": f"{number:02d}.png", "split": split, "shade": shade, "twice": 2 * shade + 7})
        rows[-1] |= {"spot_x": x + 0.5, "spot_y": y + 0.5, "corner_x": x, "corner_y": y}
    write_table(folder / "table.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def shades(root):
    data = ImageNumbers(root, "table.csv", ("shade", "twice"), split="split", size=8, grey=True)
    return Regression(data, Teacher(TEACHER, RECIPE, epochs=5), RECIPE)


@pytest.fixture(scope="module")
def spots(root):
    data = ImagePoints(root, "table.csv", ("spot", "corner"), split="split", size=8, grey=True)
    return Regression(data, Teacher(TEACHER, RECIPE, epochs=5), RECIPE, CropFlip(padding=1, flip=True), error="mae")


def job(task, storage, folder, **settings):
    return dataclasses.replace(small.job(task, storage, folder, **settings), student=STUDENT)


def train(task, tmp_path, loss, **settings):
    context = job(task, tmp_path, tmp_path / type(loss).__name__, loss=loss, phase="confirm", seed=8, **settings)
    return metrics(list(task.train(context)))


@pytest.mark.parametrize("name", ["shades", "spots"])
def test_students_learn_under_every_loss_that_fits(name, request, tmp_path):
    task = request.getfixturevalue(name)
    equal = dataclasses.replace(task, teacher=Teacher(STUDENT, RECIPE, epochs=5))
    losses = (NoDistillation(), PredictionMatching(), FeatureMatching(), RKD(), AttentionTransfer())
    equal.check((STUDENT,), losses, tmp_path)
    prepared(equal, tmp_path)
    for loss in losses:
        rows = train(equal, tmp_path, loss, train_on="train")
        assert rows[-1]["train/task_loss"] < rows[0]["train/task_loss"]
        assert rows[-1].keys() <= equal.metrics.keys()
        assert {f"test/{score.name}" for score in equal.scores} <= rows[-1].keys()


def test_student_approaches_its_teacher_under_prediction_matching_alone(shades, tmp_path):
    prepared(shades, tmp_path)
    rows = train(shades, tmp_path, PredictionMatching(task_weight=0.0), train_on="train", epochs=5)
    assert rows[-1]["train/teacher_distance"] < rows[0]["train/teacher_distance"]


def test_scores_of_numbers_are_in_their_own_units():
    table = TargetTable(("a", "b"))
    assert [score.name for score in define_scores(table)] == ["mae", "rmse", "mae_a", "mae_b"]
    meter = RegressionScores(table, (2.0, 10.0), "cpu")
    for rows in ([[1.0, 0.0]], [[0.0, -2.0], [3.0, 1.0]]):
        errors = torch.tensor(rows)
        meter.update(Outputs(errors), Batch(torch.empty(0), torch.zeros_like(errors), NOTHING, NOTHING))
    scores = meter.compute()
    assert scores["mae_a"] == pytest.approx((2 + 0 + 6) / 3)
    assert scores["mae_b"] == pytest.approx((0 + 20 + 10) / 3)
    assert scores["mae"] == pytest.approx((8 + 30) / 6)
    assert scores["rmse"] == pytest.approx(((4 + 36 + 400 + 100) / 6) ** 0.5)


def test_distance_of_points_is_a_share_of_the_side():
    meter = RegressionScores(TargetTable(("nose",), are_points=True), (1.0, 1.0), "cpu")
    batch = Batch(torch.empty(0), torch.tensor([[-1.0, -1.0], [0.0, 0.0]]), NOTHING, NOTHING)
    meter.update(Outputs(torch.tensor([[1.0, -1.0], [0.6, 0.8]])), batch)
    assert meter.compute() == {"distance": pytest.approx((1.0 + 0.5) / 2)}


def test_points_move_with_their_images():
    """A bright pixel is where its point says, in every view that shows it."""
    views, side = CropFlip(padding=2, flip=True), 9
    numbers = torch.arange(views.count)
    images = torch.zeros(len(numbers), 1, side, side, dtype=torch.uint8)
    column, row = 3, 5
    images[:, 0, row, column] = 255
    place = torch.tensor([2 * (column + 0.5) / side - 1, 2 * (row + 0.5) / side - 1, 0.0, 0.0])
    points = view_points(views, place.expand(len(numbers), 4), numbers, torch.tensor([0, 1]), side)
    x, y = ((points[:, :2] + 1) * side / 2 - 0.5).round().long().unbind(dim=1)
    assert (views.apply(images, numbers)[numbers, 0, y, x] == 255).all()
    assert torch.equal(points[0], place)


def test_exchanged_points_trade_places_in_the_mirror_image():
    views, order = CropFlip(padding=0, flip=True), torch.tensor(TargetTable(("l", "r"), True, (("l", "r"),)).mirror())
    points = torch.tensor([[-0.5, 0.1, 0.75, 0.2]]).expand(2, 4)
    moved = view_points(views, points, torch.tensor([0, 1]), order, 8)
    assert moved.tolist() == [pytest.approx([-0.5, 0.1, 0.75, 0.2]), pytest.approx([-0.75, 0.2, 0.5, 0.1])]


def test_export_carries_names_and_units_of_the_outputs(shades, spots, tmp_path):
    for task, names in ((shades, ["shade", "twice"]), (spots, ["spot_x", "spot_y", "corner_x", "corner_y"])):
        outputs = task.data_record()["outputs"]
        assert [one["name"] for one in outputs] == names
    assert outputs[0] == {"name": "spot_x", "scale": 4.0, "offset": 3.5}
    student = ResNet(8, width=4)
    plain = dataclasses.replace(shades, teacher=Teacher(student))
    folder = tmp_path / "t"
    context = dataclasses.replace(job(plain, tmp_path, folder, loss=NoDistillation(), epochs=1), student=student)
    rows = list(plain.train(context))
    config = {"task": describe(plain), "student": describe(student), "inputs": {"data": plain.loaded.fingerprint}}
    trained = TrainedTrial(config, folder, {"val/mae": rows[-1]["metrics"]["val/mae"]})
    about = restore_student(trained, plain.data.root).metadata
    assert [one["name"] for one in json.loads(about["outputs"])] == ["shade", "twice"]
    assert [one["offset"] for one in json.loads(about["outputs"])] == pytest.approx(plain.loaded.offset)


# -- what is refused


@pytest.mark.parametrize("loss", [KD(), PixelKD()])
def test_losses_that_compare_classes_are_refused(shades, tmp_path, loss):
    name = type(loss).__name__
    with pytest.raises(InputError, match=f"{name} compares classes, which a regression does not have; allowed are"):
        shades.check((STUDENT,), (loss,), tmp_path)


def test_net_of_another_output_is_refused(shades, tmp_path):
    with pytest.raises(InputError, match=r"a net returns \(2, 2, 8, 8\) for images .*; needed are numbers \(B, 2\)"):
        shades.check((Net(make_map),), (NoDistillation(),), tmp_path)


def test_views_that_move_points_are_refused(spots, shades, tmp_path):
    moved = dataclasses.replace(spots, views=ResizedCrops(8))
    with pytest.raises(InputError, match="views of ResizedCrops move the points of an image; allowed is CropFlip"):
        moved.check((STUDENT,), (NoDistillation(),), tmp_path)
    dataclasses.replace(shades, views=ResizedCrops(8)).check((STUDENT,), (NoDistillation(),), tmp_path)


def test_data_without_a_target_table_are_refused():
    with pytest.raises(InputError, match="Regression takes no Digits, which has no target_table"):
        _ = Regression(Digits(train=80), Teacher(TEACHER), RECIPE).scores


def test_predictions_of_two_shapes_are_refused():
    loss = PredictionMatching()
    with pytest.raises(InputError, match=r"a student's \(2, 3\) and a teacher's \(2, 4\) predictions"):
        loss(Outputs(torch.zeros(2, 3)), Outputs(torch.zeros(2, 4)), None, Progress(0, 1))


@pytest.mark.parametrize(("norm", "value"), [("mse", 2.5), ("mae", 1.5)])
def test_prediction_matching_is_the_mean_difference(norm, value):
    student, teacher = Outputs(torch.tensor([[1.0, 0.0]])), Outputs(torch.tensor([[0.0, 2.0]]).half())
    assert PredictionMatching(norm=norm)(student, teacher, None, Progress(0, 1)) == value


def test_another_error_is_refused(shades):
    with pytest.raises(InputError, match="error is 'rmse'; allowed are 'mse', 'mae'"):
        dataclasses.replace(shades, error="rmse")

"""Errors of a user's nets, losses and data before a study: one line with the user's file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.errors import InputError
from study.preflight import check_inputs
from study.space_file import load_space

SPACE = """
from dataclasses import dataclass, replace

import torch
from torch import nn

from study import Arm, Budget, Study
from trainables import Classification, CropFlip, Digits, KD, NoDistillation, Recipe, ResNet, Teacher


@dataclass(frozen=True)
class Data:
    def load(self):
        images = Digits(train=100).load()
        return DATA


@dataclass(frozen=True)
class Student:
    name: str = "mine"

    def build(self, channels, classes):
        return BUILD


@dataclass(frozen=True)
class Loss:
    needs_teacher = True
    task_weight: float = 1.0

    def __call__(self, student, teacher, targets, progress):
        return LOSS


recipe = Recipe(32)
study = Study(
    "toy", "?", Classification(Data(), Teacher(ResNet(8, 4), recipe, 1), recipe, CropFlip(0, flip=False)), (Student(),),
    (Arm("none", NoDistillation(), baseline=True), Arm("mine", Loss())), Budget(1, 1, 1),
)
"""

WHOLE = {
    "DATA": "images",
    "BUILD": "nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))",
    "LOSS": "(student.prediction - teacher.prediction.float()).square().mean()",
}


def check(folder: Path, **changes: str) -> None:
    text = SPACE
    for name, code in (WHOLE | changes).items():
        text = text.replace(name, code)
    (folder / "space.py").write_text(text)
    check_inputs(load_space(folder / "space.py", None, None).study, folder)


def line_of(name: str) -> int:
    return next(number for number, line in enumerate(SPACE.splitlines(), 1) if line.strip() == f"return {name}")


def test_space_without_errors_passes(tmp_path: Path) -> None:
    check(tmp_path)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("BUILD", "nn.Linear(classes)", r"TypeError: .*missing.*\(space\.py, line {}\)"),
        ("DATA", "images[0]", r"TypeError: .*\(space\.py, line {}\)"),
        ("LOSS", "student.prediction - teacher.features['x']", r"Loss raises KeyError on .*\(space\.py, line {}\)"),
        ("LOSS", "student.prediction.mean().item()", "Loss returns float; allowed is a tensor, a scalar"),
        ("LOSS", "student.prediction", r"Loss returns a tensor of shape \(2, 10\); allowed is a scalar"),
        ("LOSS", "student.prediction.argmax()", r"Loss returns a tensor of torch\.int64; allowed is one of floats"),
    ],
)
def test_error_names_the_users_file_and_line(tmp_path: Path, name: str, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message.format(line_of(name))):
        check(tmp_path, **{name: code})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("(student.prediction - student.prediction.mean(dim=0)).std(dim=0).mean()", "Loss is nan on one sample"),
        ("student.prediction[1].mean()", "Loss raises IndexError on one sample, .* another batch size: .*line 32"),
    ],
)
def test_loss_that_fails_on_a_last_batch_of_one_sample_is_refused(tmp_path: Path, loss: str, message: str) -> None:
    check(tmp_path, LOSS=loss)  # 90 training samples in batches of 32, 100 in confirm runs
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=message):
        check(tmp_path / "other", LOSS=loss, **{"Recipe(32)": "Recipe(33)"})


@pytest.mark.parametrize("size", [4, 26, 32])  # 90 and 100 training samples in batches of 32
def test_losses_are_tried_on_whole_and_on_last_batches(tmp_path: Path, size: int) -> None:
    loss = f"student.prediction.view(*((0,) if len(student.prediction) == {size} else (-1,))).mean()"
    with pytest.raises(InputError, match=f"Loss raises RuntimeError on {size} samples, which a batch of an epoch has"):
        check(tmp_path, LOSS=loss)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("replace(images, classes=9)", "training labels are from 0 to 9; with 9 classes allowed are 0 to 8"),
        ("replace(images, test_labels=images.test_labels - 1)", "test labels are from -1 to 8"),
        ("replace(images, test_labels=images.test_labels[1:])", r"test labels are int64 of shape \(898,\)"),
        (
            "replace(images, train_images=images.train_images[:, 0])",
            r"training images are uint8 of shape \(100, 8, 8\)",
        ),
        ("replace(images, train_images=images.train_images / 255.0)", "training images are float64 of shape"),
        ("replace(images, train_labels=images.train_labels * 1.0)", "training labels are float64 of shape"),
    ],
)
def test_data_that_nets_cannot_be_trained_on_are_refused(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(tmp_path, DATA=code)

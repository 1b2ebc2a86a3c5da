"""A complete task of a user's own, and what the base class of tasks gives it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainables
from study.errors import InputError
from study.records.study_json import describe_metric
from study.task import Metric
from tests.trainables import small, small_crowds
from tests.trainables.small import metrics, prepared
from tests.trainables.tasks.face_sr import test_task as test_face_sr
from tests.trainables.tasks.segmentation import test_face_parsing
from trainables import (
    Batch,
    Classification,
    CropFlip,
    CrowdCounting,
    Digits,
    DistillationTask,
    DrawnFaces,
    DrawnSrFaces,
    FaceParsing,
    FaceSR,
    GridCrops,
    MultiStep,
    NoDistillation,
    Outputs,
    Progress,
    Recipe,
    Teacher,
)
from trainables.data.arrays.splits import ImageSet
from trainables.losses.reconstruction import ReconstructionAlone
from trainables.tasks import definition

# -- the smallest task: how much ink is in an image of a digit? ----------------------------------------------------


@dataclass(frozen=True)
class Ink(DistillationTask[ImageSet]):
    """Predict the mean brightness of an image, score by its mean absolute error."""

    views: CropFlip = field(default_factory=lambda: CropFlip(padding=0, flip=False))
    validation: int = 20

    scores = (Metric("ink_error", "min", digits=3, label="error of the ink"),)
    prediction = "the mean brightness (B, 1), a share of 1"

    def build(self, model):
        return model.build()

    def load_examples(self, split, device):
        images = self.loaded.test_images if split == "test" else self.loaded.train_images[self.positions(split)]
        return Drawings(torch.from_numpy(images).to(device))

    def positions(self, split):
        count, test = len(self.loaded.train_images), len(self.loaded.test_images)
        start, stop = {
            "train": (self.validation, count), "val": (0, self.validation), "train+val": (0, count), "test": (0, test)
        }[split]  # fmt: skip
        return torch.arange(start, stop)

    def task_loss(self, outputs, batch):
        return F.mse_loss(outputs.prediction, batch.targets)

    def teacher_distance(self, student, teacher):
        return F.l1_loss(student.prediction, teacher.prediction)

    def meters(self, device, split):
        return InkError()


@dataclass(frozen=True)
class Drawings:
    images: torch.Tensor

    def __len__(self):
        return len(self.images)

    def batch(self, samples, views):
        inputs = self.images[samples].float() / 255
        return Batch(inputs, inputs.mean(dim=(1, 2, 3))[:, None], samples, views)


class InkError:
    """On one worker; of several, torchmetrics' meters combine what each has seen."""

    def __init__(self):
        self.errors = []

    def update(self, outputs, batch):
        self.errors += (outputs.prediction - batch.targets).abs().flatten().tolist()

    def compute(self):
        return {"ink_error": float(np.mean(self.errors))}


@dataclass(frozen=True)
class Linear:
    """A net by its settings."""

    name: str = "linear"

    def build(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))


@dataclass(frozen=True)
class Imitation:
    """An arm's loss: the squared distance to the teacher's answer."""

    weight: float = 1.0
    needs_teacher: bool = True
    task_weight: float = 1.0

    def __call__(self, student: Outputs, teacher: Outputs, targets: object, progress: Progress) -> torch.Tensor:
        return self.weight * F.mse_loss(student.prediction, teacher.prediction.float())


RECIPE = Recipe(16, MultiStep(0.05))
INK = Ink(Digits(train=80), Teacher(Linear("teacher"), RECIPE, epochs=2), RECIPE)


def context(folder, **settings):
    made = small.job(INK, folder / "storage", folder / "trial", **({"loss": Imitation()} | settings))
    return dataclasses.replace(made, student=Linear())


def test_eight_members_make_a_task_that_trains_and_distils(tmp_path):
    assert INK.check((Linear(),), (Imitation(), NoDistillation()), tmp_path)["data"]["train"] == 60
    assert [name for name, _ in prepared(INK, tmp_path / "storage")] == ["teacher"]
    results = metrics(list(INK.train(context(tmp_path, phase="confirm", train_on="train"))))
    assert results[-1]["train/loss"] < results[0]["train/loss"]
    assert results[-1].keys() <= INK.metrics.keys()
    assert {"test/ink_error", "test_at_best_val/ink_error", "train/teacher_distance"} <= results[-1].keys()
    assert INK.measure_cost(Linear(), tmp_path)["macs"] == 64


def test_task_without_a_member_is_refused_by_the_members_name():
    class Unfinished(Ink):
        meters = DistillationTask.meters

    with pytest.raises(TypeError, match=r"abstract method '?meters"):
        Unfinished(INK.data, INK.teacher, INK.recipe)


def test_images_in_several_splits_are_in_the_note_of_the_data(tmp_path, monkeypatch):
    images = INK.loaded
    copied = dataclasses.replace(images, test_images=np.concatenate([images.train_images[:3], images.test_images[3:]]))
    monkeypatch.setattr(definition, "load_dataset", lambda data: copied)
    data = INK.check((Linear(),), (Imitation(),), tmp_path)["data"]
    line = f"3 of {len(images.test_images)} test images occur in training or validation"
    line += " (image 0 is image 0, and 2 more)"
    assert data["duplicates"] == line
    assert len(data["duplicate_images"]) == 3
    assert data["note"] == f"80 of 898 training images; {line}"


def test_task_loss_of_an_arms_own_is_refused_where_the_task_has_none(tmp_path):
    with pytest.raises(InputError, match="ReconstructionAlone has a reconstruction, which Ink does not know"):
        INK.check((Linear(),), (ReconstructionAlone(),), tmp_path)


def test_base_class_asks_for_eight_members():
    assert DistillationTask.__abstractmethods__ == {
        "scores", "prediction", "build", "load_examples", "positions", "task_loss", "teacher_distance", "meters"
    }  # fmt: skip


def test_every_setting_of_a_task_identifies_its_teacher():
    assert dataclasses.replace(INK, validation=10).teacher_key != INK.teacher_key
    assert dataclasses.replace(INK, recipe=Recipe(8)).teacher_key == INK.teacher_key
    assert dataclasses.replace(INK, teacher_store=False).teacher_key == INK.teacher_key


def test_outputs_are_stored_only_where_the_task_gives_their_size():
    assert INK.stored_output_bytes is None
    assert INK.with_live_teacher() is INK
    assert small.TASK.stored_output_bytes == 20
    assert small.TASK.with_live_teacher().stored_output_bytes is None


# -- what tasks declare --------------------------------------------------------------------------------------------

TASKS = [small.TASK, small_crowds.TASK, test_face_parsing.TASK, test_face_sr.TASK]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_tasks_declare_every_metric_with_its_unit_and_their_prediction(task):
    names = [metric.name for metric in task.scores]
    assert task.selection_metric == f"val/{names[0]}"
    assert {f"{split}/{name}" for split in ("val", "test") for name in names} <= task.metrics.keys()
    assert all(metric.name == name.rsplit("/", 1)[-1] for name, metric in task.metrics.items())
    assert all(metric.direction in ("min", "max") for metric in task.metrics.values())
    assert "(B, " in task.prediction


def test_metric_is_recorded_by_direction_unit_digits_and_label():
    assert describe_metric(Metric("psnr", "max", "dB", 3, "PSNR")) == {
        "direction": "max", "unit": "dB", "digits": 3, "label": "PSNR"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "data"),
    [
        (Classification, DrawnFaces(train=4, val=2, test=2, size=32)),
        (FaceParsing, DrawnSrFaces(train=4, val=2, test=2)),
        (FaceSR, Digits(train=100)),
        (CrowdCounting, DrawnFaces(train=4, val=2, test=2, size=32)),
    ],
)
def test_data_of_another_task_are_refused_with_those_that_are_allowed(task: Any, data: Any) -> None:
    further = {"views": GridCrops(32, rows=2, columns=2)} if task is CrowdCounting else {}
    made = task(data=data, teacher=Teacher(None), recipe=Recipe(), **further)
    with pytest.raises(InputError, match=f"{task.__name__} takes no {type(data).__name__}; allowed are") as refused:
        _ = made.loaded
    names = str(refused.value).split("allowed are ")[1].split(", and data")[0].split(", ")
    assert all(hasattr(trainables, name) for name in names)

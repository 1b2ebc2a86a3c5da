"""Export of nets of torchvision: with taps, grey images and inputs that are normalised again."""

from __future__ import annotations

import dataclasses
import json

import pytest

from study.identity import describe
from tests.trainables import small
from trainables.export.onnx import export_student
from trainables.export.restore import TrainedTrial
from trainables.losses.none import NoDistillation
from trainables.models.torchvision_nets import Torchvision

STUDENT = Torchvision("resnet18", taps=("layer1",), normalisation="imagenet")


@pytest.mark.slow
def test_student_of_torchvision_is_rebuilt_and_exported(tmp_path):
    context = small.job(small.TASK, tmp_path, tmp_path / "c", phase="confirm", epochs=1, loss=NoDistillation())
    (row,) = small.TASK.train(dataclasses.replace(context, student=STUDENT, train_on="train+val"))
    config = {"task": describe(small.TASK), "student": describe(STUDENT)}
    config |= {"inputs": {"data": small.TASK.loaded.fingerprint}}
    scores = {"test/accuracy": row["metrics"]["test/accuracy"]}
    trained = TrainedTrial(json.loads(json.dumps(config)), tmp_path / "c", scores)
    exported = export_student(trained, None, tmp_path / "out", {})
    assert exported.output_shape == (1, 10)
    assert exported.parameters == row["metrics"]["student/parameters"]

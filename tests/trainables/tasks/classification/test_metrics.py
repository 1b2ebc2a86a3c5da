"""Scores of classification, chosen by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from study.errors import InputError
from study.identity import describe
from tests.trainables import small
from trainables.losses.none import NoDistillation
from trainables.models.resnet_cifar import ResNet
from trainables.task import Batch, Outputs
from trainables.tasks.classification.metrics import ClassifierScores

NAMES = ("accuracy", "top5", "macro_f1", "recall_2", "MulticlassCohenKappa", "MulticlassAUROC")


def scored(*names):
    return dataclasses.replace(small.TASK, metric_names=names)


def test_scores_equal_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(300, 7, generator=generator), torch.randint(7, (300,), generator=generator)
    logits[torch.arange(300), labels] += 1.0
    scores = ClassifierScores(NAMES, [str(number) for number in range(7)], "cpu")
    for part in torch.arange(300).split(77):
        scores.update(Outputs(logits[part]), Batch(torch.empty(0), labels[part], part, part))
    y, predicted, shares = labels.numpy(), logits.argmax(1).numpy(), logits.softmax(1).numpy()
    assert scores.compute() == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, predicted),
            "top5": reference.top_k_accuracy_score(y, shares, k=5),
            "macro_f1": reference.f1_score(y, predicted, average="macro"),
            "recall_2": reference.recall_score(y, predicted, labels=[2], average="macro"),
            "MulticlassCohenKappa": reference.cohen_kappa_score(y, predicted),
            "MulticlassAUROC": reference.roc_auc_score(y, shares, multi_class="ovr"),
        },
        abs=1e-5,
    )


def test_a_class_without_samples_has_no_recall():
    scores = ClassifierScores(("recall_b",), ("a", "b"), "cpu")
    scores.update(Outputs(torch.eye(2)[[0, 1]]), Batch(torch.empty(0), torch.zeros(2, dtype=torch.int64), None, None))
    assert scores.compute() == {}


def test_students_are_measured_and_selected_by_the_chosen_scores(tmp_path):
    task = scored("macro_f1", "top5", "MulticlassCalibrationError")
    assert task.selection_metric == "val/macro_f1"
    assert task.metrics["val/MulticlassCalibrationError"].direction == "min"
    assert "train/macro_f1" not in task.metrics
    context = small.job(task, tmp_path, tmp_path / "c", phase="confirm", epochs=1, loss=NoDistillation())
    (row,) = task.train(dataclasses.replace(context, train_on="train"))
    for split in ("val", "test"):
        measured = {name for name in row["metrics"] if name.startswith(split + "/")}
        assert {f"{split}/{name}" for name in ("macro_f1", "top5", "MulticlassCalibrationError")} <= measured
        assert f"{split}/accuracy" not in measured
    assert 0 < row["metrics"]["test/macro_f1"] < row["metrics"]["test/top5"] <= 1


def test_scores_of_a_split_are_those_of_its_predictions(tmp_path):
    task = scored("accuracy", "macro_f1")
    net = task.build(ResNet(8, width=4)).eval()
    examples, meters = task.examples("test", "cpu"), task.meters("cpu", "test")
    batch = examples.batch(torch.arange(len(examples)), torch.zeros(len(examples), dtype=torch.int64))
    with torch.no_grad():
        outputs = task.outputs(net, batch)
    meters.update(outputs, batch)
    predicted, labels = outputs.prediction.argmax(1).numpy(), batch.targets.numpy()
    assert meters.compute()["accuracy"] == pytest.approx(np.mean(predicted == labels))
    f1 = reference.f1_score(labels, predicted, labels=range(10), average="macro", zero_division=0)
    assert meters.compute()["macro_f1"] == pytest.approx(f1, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["acc", "recall_", "MulticlassConfusionMatrix", "MulticlassFBetaScore", "MulticlassROC", "BinaryAccuracy"]
)
def test_names_that_are_no_score_are_refused(name):
    with pytest.raises(InputError, match=r"metric_names has .*; allowed are accuracy, top5"):
        scored("accuracy", name)


@pytest.mark.parametrize("names", [(1,), ("accuracy", None), 5, {"accuracy"}, (("accuracy",),)])
def test_values_that_are_no_names_are_refused(names):
    with pytest.raises(InputError, match=r"metric_names is .*; write names of scores, such as \(\"accuracy\""):
        dataclasses.replace(small.TASK, metric_names=names)


def test_names_in_no_tuple_are_refused():
    with pytest.raises(InputError, match=r'metric_names is "accuracy"; write \("accuracy",\)'):
        dataclasses.replace(small.TASK, metric_names="accuracy")
    with pytest.raises(InputError, match="metric_names is empty"):
        scored()
    with pytest.raises(InputError, match="metric_names has 'accuracy' twice"):
        scored("accuracy", "accuracy")


def test_recall_of_an_unknown_class_is_refused_by_the_check():
    with pytest.raises(InputError, match=r"metric_names has 'recall_cat', but there is no class 'cat'; there are 0, 1"):
        scored("recall_cat").check_data((), ())


def test_recall_of_a_class_without_images_is_refused_by_the_check(monkeypatch):
    task = scored("recall_3")
    task.check_data((), ())
    labels = task.loaded.train_labels
    monkeypatch.setattr(type(task), "positions", lambda *_: torch.from_numpy(np.flatnonzero(labels != 3)))
    with pytest.raises(InputError, match="'recall_3', but no val image is of that class"):
        task.check_data((), ())


def test_top5_of_four_classes_is_refused():
    with pytest.raises(InputError, match="the data have 4 classes"):
        ClassifierScores(("top5",), "abcd", "cpu")


def test_names_are_part_of_the_identity_only_where_they_are_given():
    assert "metric_names" not in describe(small.TASK)
    assert scored("accuracy", "top5").teacher_key != small.TASK.teacher_key

"""The check of a teacher's file for labels in another order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.trainables.small import TASK, prepared
from trainables.data.digits import Digits
from trainables.models.resnet_cifar import ResNet
from trainables.teacher import weights as teachers
from trainables.teacher.label_order import count_confusions, find_label_order
from trainables.teacher.weights import Teacher


def confuse(recall: float, classes: int = 10, samples: int = 100) -> np.ndarray:
    """Counts of a net that is right in the share `recall` of each class, and guesses evenly else."""
    wrong = (1 - recall) * samples / (classes - 1)
    return np.where(np.eye(classes, dtype=bool), recall * samples, wrong).round().astype(np.int64)


def test_a_net_with_its_own_labels_has_no_other_order() -> None:
    for recall in (0.95, 0.4, 0.1):
        assert find_label_order(confuse(recall)) is None


def test_a_permutation_of_all_labels_is_found_with_the_accuracy_behind_it() -> None:
    order = np.array([3, 0, 1, 2, 9, 4, 5, 6, 7, 8])
    found = find_label_order(confuse(0.75)[:, np.argsort(order)])
    assert found is not None
    assert found["moved"] == [[label, int(order[label])] for label in range(10)]
    assert (found["classes"], found["accuracy_in_order"]) == (10, pytest.approx(0.75, abs=0.02))
    assert found["accuracy"] == pytest.approx(0.25 / 9, abs=0.01)


def test_two_exchanged_labels_are_found() -> None:
    counts = confuse(0.9)
    counts[:, [2, 5]] = counts[:, [5, 2]]
    found = find_label_order(counts)
    assert found is not None
    assert found["moved"] == [[2, 5], [5, 2]]


def test_a_net_that_knows_nothing_has_no_order() -> None:
    rng = np.random.default_rng(0)
    assert find_label_order(rng.multinomial(100, np.full(10, 0.1), size=10)) is None
    constant = np.zeros((10, 10), dtype=np.int64)
    constant[:, 4] = 100
    assert find_label_order(constant) is None


def test_a_net_that_confuses_two_classes_has_no_other_order() -> None:
    counts = confuse(0.9)
    counts[2, [2, 5]] = 40, 50
    counts[5, [2, 5]] = 50, 40
    assert find_label_order(counts) is None


def test_a_teachers_file_with_exchanged_labels_is_recorded(tmp_path):
    task = dataclasses.replace(TASK, data=Digits(train=300), teacher=dataclasses.replace(TASK.teacher, epochs=8))
    prepared(task, tmp_path)
    folder = teachers.teacher_folder(tmp_path, task.teacher_key)
    state = safetensors.torch.load_file(folder / "weights.safetensors")
    right = teachers.read_record(tmp_path, task.teacher_key)["metrics"]["val/accuracy"]
    assert right > 0.8
    order = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    moved = state | {name: state[name][order].contiguous() for name in ("fc.weight", "fc.bias")}
    records = {}
    for name, tensors in (("right", state), ("moved", moved)):
        torch.save(tensors, tmp_path / f"{name}.pth")
        read = dataclasses.replace(task, teacher=Teacher(ResNet(8), weights=tmp_path / f"{name}.pth"))
        prepared(read, tmp_path)
        records[name] = teachers.read_record(tmp_path, read.teacher_key)
    assert "label_order" not in records["right"]
    found = records["moved"]["label_order"]
    assert found["moved"] == [[label, (label - 1) % 10] for label in range(10)]
    assert found["accuracy_in_order"] == pytest.approx(right)
    assert found["accuracy"] == pytest.approx(records["moved"]["metrics"]["val/accuracy"])


def test_confusions_count_true_classes_by_predicted_ones(storage):
    net = teachers.load_weights(
        TASK.build(ResNet(8)), teachers.teacher_folder(storage, TASK.teacher_key) / "weights.safetensors"
    )
    counts = count_confusions(TASK, net, "cpu")
    assert counts.sum() == len(TASK.positions("val"))
    labels = TASK.loaded.train_labels[TASK.positions("val").numpy()]
    assert counts.sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert np.trace(counts) / counts.sum() == pytest.approx(
        teachers.read_record(storage, TASK.teacher_key)["metrics"]["val/accuracy"]
    )

"""Weights of classes in the task loss of classification."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from study.errors import InputError
from study.identity import describe
from tests.trainables import small
from trainables.models.resnet_cifar import ResNet
from trainables.task import Batch, Outputs

WEIGHTS = tuple(float(number) for number in range(1, 11))


def weighted(weights):
    return dataclasses.replace(small.TASK, class_weights=weights)


def loss_of(task, logits, targets) -> torch.Tensor:
    samples = torch.arange(len(targets))
    return task.task_loss(Outputs(logits), Batch(torch.empty(0), targets, samples, samples))


def test_loss_is_the_mean_of_weighted_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(16, 10, generator=generator), torch.randint(10, (16,), generator=generator)
    z = logits.double().numpy()
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(16), targets.numpy()]
    expected = (losses * np.array(WEIGHTS)[targets.numpy()]).mean()
    assert float(loss_of(weighted(WEIGHTS), logits, targets)) == pytest.approx(expected, rel=1e-6)
    alike = loss_of(weighted((1.0,) * 10), logits, targets)
    assert float(alike) == pytest.approx(float(loss_of(small.TASK, logits, targets)), rel=1e-6)


def test_shards_of_a_batch_add_up_to_the_batch():
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(12, 10, generator=generator), torch.randint(10, (12,), generator=generator)
    task = weighted(WEIGHTS)
    parts = [loss_of(task, logits[part], targets[part]) * len(part) / 12 for part in torch.arange(12).split(5)]
    assert float(sum(parts)) == pytest.approx(float(loss_of(task, logits, targets)), rel=1e-6)


def test_balanced_weights_are_in_inverse_proportion_to_training_images():
    task = weighted("balanced")
    counts = np.bincount(task.loaded.train_labels[task.positions("train").numpy()], minlength=10)
    weights = task.weigh_classes().numpy()
    assert weights * counts == pytest.approx(counts.sum() / 10)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)


def test_weights_are_part_of_the_identity_only_where_they_are_given():
    assert "class_weights" not in describe(small.TASK)
    assert describe(weighted("balanced"))["class_weights"] == "balanced"
    keys = {task.teacher_key for task in (small.TASK, weighted("balanced"), weighted(WEIGHTS))}
    assert len(keys) == 3


@pytest.mark.parametrize(
    "weights", ["even", (), (1.0, 0.0), 3, (1.0, math.nan), (1.0, math.inf), ("1", 2), (None,), (True, 1.0), [1.0, 2.0]]
)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match='allowed are "balanced" and a tuple of finite numbers above 0'):
        weighted(weights)


def test_another_number_of_weights_than_classes_is_refused_before_a_study(tmp_path):
    with pytest.raises(InputError, match="class_weights has 2 numbers; scikit-learn digits has 10 classes"):
        weighted((1.0, 2.0)).check((ResNet(8, 4),), (), tmp_path)

"""Attention transfer against numpy, and nets that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from study.errors import InputError
from tests.trainables.losses.feature_losses import START
from trainables.losses.features.attention import AttentionTransfer
from trainables.task import Outputs


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(*features: torch.Tensor) -> Outputs:
    by_name = {f"layer{number}": each for number, each in enumerate(features)}
    return Outputs(torch.zeros(len(features[0]), 2, dtype=torch.float64), by_name | {"last": features[-1]})


def attention(features: np.ndarray) -> np.ndarray:
    rows = (features**2).mean(axis=1).reshape(len(features), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_loss_equals_numpy_over_taps_of_other_widths_and_sizes(batch):
    student = [maps(batch, 2, 4, 6), maps(batch, 5, 2, 3, seed=1)]
    teacher = [maps(batch, 7, 8, 12, seed=2), maps(batch, 3, 2, 3, seed=3)]
    halved = teacher[0].numpy().reshape(batch, 7, 4, 2, 6, 2).mean(axis=(3, 5))
    pairs = [(student[0].numpy(), halved), (student[1].numpy(), teacher[1].numpy())]
    expected = sum(((attention(a) - attention(b)) ** 2).mean() for a, b in pairs)
    value = AttentionTransfer(weight=3.0)(outputs(*student), outputs(*teacher), None, START)
    assert value.item() == pytest.approx(3 * expected, rel=1e-12)


def test_gradient_equals_finite_differences_and_leaves_the_teacher_alone():
    student, teacher = maps(2, 2, 3, 3).requires_grad_(), maps(2, 4, 3, 3, seed=1).requires_grad_()
    loss = AttentionTransfer(weight=1.0)
    assert torch.autograd.gradcheck(lambda z: loss(outputs(z), outputs(teacher), None, START), student)
    loss(outputs(student), outputs(teacher), None, START).backward()
    assert teacher.grad is None


def test_features_of_zero_and_of_bfloat16_give_a_finite_loss_and_gradient():
    student, teacher = torch.zeros(2, 2, 3, 3, requires_grad=True), maps(2, 4, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = AttentionTransfer()(outputs(student), outputs(teacher), None, START)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (outputs(maps(2, 2, 3, 3)), outputs(maps(2, 2, 3, 3), maps(2, 2, 3, 3)), "student returns 1, the teacher 2"),
        (Outputs(maps(2, 2)), Outputs(maps(2, 2)), "student returns 0"),
        (outputs(maps(2, 2)), outputs(maps(2, 2)), r"allowed are maps \(B, C, H, W\)"),
    ],
)
def test_features_that_do_not_fit_are_refused(student, teacher, words):
    with pytest.raises(InputError, match=words):
        AttentionTransfer()(student, teacher, None, START)


def test_weight_below_zero_is_refused():
    with pytest.raises(InputError, match="weight"):
        AttentionTransfer(weight=-1.0)

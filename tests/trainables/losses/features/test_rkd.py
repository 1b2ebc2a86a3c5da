"""RKD against numpy, pair by pair and triple by triple."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from study.errors import InputError
from tests.trainables.losses.feature_losses import START
from trainables.losses.features.rkd import RKD
from trainables.task import Outputs


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(features: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(features), 2), {"last": features})


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap**2 / 2 if gap < 1 else gap - 0.5


def unit(v: np.ndarray) -> np.ndarray:
    return v / max(np.linalg.norm(v), 1e-12)


def reference(s: np.ndarray, t: np.ndarray, distance: float, angle: float) -> float:
    n = range(len(s))
    pairs = [np.array([[np.linalg.norm(x[i] - x[j]) for j in n] for i in n]) for x in (s, t)]
    d_s, d_t = (d / (d.sum() / (len(d) * (len(d) - 1))) for d in pairs)
    of_pairs = np.mean([huber(d_s[i, j], d_t[i, j]) for i, j in product(n, n)])
    angles = [[unit(x[j] - x[i]) @ unit(x[k] - x[i]) for i, j, k in product(n, n, n)] for x in (s, t)]
    return distance * of_pairs + angle * np.mean([huber(a, b) for a, b in zip(*angles, strict=True)])


def test_loss_equals_numpy_for_nets_of_different_width():
    student, teacher = 4 * vectors(5, 3), vectors(5, 7, seed=1)
    value = RKD(distance=2.0, angle=3.0)(outputs(student), outputs(teacher), None, START)
    assert value.item() == pytest.approx(reference(student.numpy(), teacher.numpy(), 2.0, 3.0), rel=1e-10)


def test_maps_are_averaged_over_their_pixels():
    student, teacher = vectors(4, 3, 2, 5), vectors(4, 6, seed=1)
    of_maps = RKD()(outputs(student), outputs(teacher), None, START)
    assert torch.equal(of_maps, RKD()(outputs(student.flatten(2).mean(2)), outputs(teacher), None, START))


def test_gradient_equals_finite_differences_and_leaves_the_teacher_alone():
    student, teacher = vectors(4, 3).requires_grad_(), vectors(4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: RKD(1.0, 1.0)(outputs(z), outputs(teacher), None, START), student)
    RKD()(outputs(student), outputs(teacher), None, START).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("batch", [1, 4])
def test_one_sample_and_equal_samples_give_a_finite_loss_and_gradient(batch):
    student = torch.ones(batch, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = RKD()(outputs(student), outputs(vectors(batch, 5).bfloat16()), None, START)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert (value == 0) == (batch == 1)
    assert student.grad.isfinite().all()


def test_scale_and_rotation_of_the_teacher_are_free():
    teacher = vectors(5, 4)
    rotation, _ = torch.linalg.qr(vectors(4, 4, seed=2))
    value = RKD()(outputs(3 * teacher @ rotation), outputs(teacher), None, START)
    assert value.item() == pytest.approx(0, abs=1e-12)


def test_nets_without_features_and_negative_weights_are_refused():
    with pytest.raises(InputError, match="do not return"):
        RKD()(Outputs(vectors(2, 2)), outputs(vectors(2, 2)), None, START)
    with pytest.raises(InputError, match="angle"):
        RKD(angle=-1.0)

"""Density distillation: counts survive pooling, alpha moves the target and nothing else, and stays within [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from study.space.domains import resolve_corners, uniform
from trainables.losses.density import DensityDistillation, density_mse, sum_pool
from trainables.losses.none import NoDistillation
from trainables.task import Outputs
from trainables.training.schedules import Cosine, Progress, Staircase, evaluate_schedules, value_at

START = Progress(0, 10)


def maps(*shapes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 1, *shape, generator=generator, dtype=torch.float32) for shape in shapes]


def total(alpha, student, truth, teacher, progress=START) -> torch.Tensor:
    """As the training loop adds it up."""
    loss = DensityDistillation(alpha)
    said = loss(Outputs(student), Outputs(teacher), None, progress)
    return value_at(loss.task_weight, progress) * density_mse(student, truth) + said


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_sum_pooling_keeps_every_count(factor: int, height: int, width: int, seed: int) -> None:
    fine, coarse = maps((height * factor, width * factor), (height, width), seed=seed)
    pooled = sum_pool(fine, coarse)
    assert pooled.shape == coarse.shape
    torch.testing.assert_close(pooled.sum(dim=(1, 2, 3)), fine.sum(dim=(1, 2, 3)))


def test_sum_pooling_adds_up_the_pixels_it_covers() -> None:
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    expected = fine.numpy().reshape(2, 2, 2, 2).sum(axis=(1, 3))
    assert np.array_equal(sum_pool(fine, torch.zeros(1, 1, 2, 2))[0, 0].numpy(), expected)


@pytest.mark.parametrize("shape", [(3, 4), (8, 8), (2, 1)])
def test_maps_whose_sizes_do_not_divide_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be summed"):
        sum_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, *shape))


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 99))
def test_alpha_blends_the_targets_and_nothing_else(alpha: float, seed: int) -> None:
    # (1−a)·‖s−g‖² + a·‖s−t‖² = ‖s − ((1−a)·g + a·t)‖² + a·(1−a)·‖g−t‖²
    student, truth, teacher = (m.double() for m in maps((4, 6), (8, 12), (8, 12), seed=seed))
    student.requires_grad_()
    apart = total(alpha, student, truth, teacher)
    blended = density_mse(student.double(), (1 - alpha) * truth + alpha * teacher)
    rest = alpha * (1 - alpha) * (sum_pool(truth, student) - sum_pool(teacher, student)).square().mean()
    assert float(apart.detach()) == pytest.approx(float((blended + rest).detach()), rel=1e-5)
    (ours,) = torch.autograd.grad(apart, student)
    (theirs,) = torch.autograd.grad(blended, student)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_loss_equals_numpy_in_float64() -> None:
    student, truth, teacher = maps((4, 4), (8, 8), (8, 8))
    s, g, t = (m.double().numpy() for m in (student, truth, teacher))
    g, t = (m.reshape(2, 1, 4, 2, 4, 2).sum(axis=(3, 5)) for m in (g, t))
    expected = 0.7 * ((s - g) ** 2).mean() + 0.3 * ((s - t) ** 2).mean()
    assert float(total(0.3, student, truth, teacher)) == pytest.approx(expected, rel=1e-5)


def test_alpha_of_zero_is_no_distillation() -> None:
    student, truth, teacher = maps((4, 4), (8, 8), (8, 8))
    control = NoDistillation()
    alone = control.task_weight * density_mse(student, truth) + control(Outputs(student), None, None, START)
    assert float(total(0.0, student, truth, teacher)) == float(alone)


def test_teacher_gets_no_gradient_and_half_precision_is_widened() -> None:
    student, teacher = maps((4, 4), (8, 8))
    teacher.requires_grad_()
    loss = DensityDistillation(1.0)(Outputs(student.bfloat16().requires_grad_()), Outputs(teacher), None, START)
    loss.backward()
    assert teacher.grad is None
    assert loss.dtype == torch.float32


def test_weights_of_a_scheduled_alpha_sum_to_one_and_only_alpha_is_on_record() -> None:
    loss = DensityDistillation(Staircase(0.7, 0.0, stages=5))
    for epoch in range(10):
        progress = Progress(epoch, 10)
        assert value_at(loss.alpha, progress) + value_at(loss.task_weight, progress) == pytest.approx(1)
        assert evaluate_schedules(loss, progress) == {"alpha": value_at(loss.alpha, progress)}
    assert loss.task_weight.bounds() == pytest.approx((0.3, 1.0))


@pytest.mark.parametrize(
    "alpha", [-0.1, 1.1, math.nan, math.inf, Staircase(0.5, 1.5, stages=3), Cosine(-0.2, 0.5), "0.5", True]
)
def test_alpha_outside_zero_to_one_is_refused(alpha: object) -> None:
    with pytest.raises(InputError, match="alpha is"):
        DensityDistillation(alpha)


def test_searched_alpha_is_refused_at_the_end_that_is_outside() -> None:
    assert len(list(resolve_corners(DensityDistillation(uniform(0, 1))))) == 2
    with pytest.raises(InputError, match=r"alpha is 1\.5"):
        list(resolve_corners(DensityDistillation(uniform(0, 1.5))))

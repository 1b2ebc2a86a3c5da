from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.losses.common.logits import standardise
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import KD
from trainables.task import Outputs
from trainables.training.schedules import Progress

LOSSES = [KD(standardise=True, temperature=2.0, weight=9.0), DKD(standardise=True, pruning=0.3)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_standardised_logits_have_mean_0_and_unbiased_deviation_1():
    z = standardise(7 * normal(16, 100) + 3)
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(16, dtype=torch.float64), rtol=0, atol=1e-14)
    # Sun et al. 2024 divide by K − 1; by K the deviation would be 0.995 here.
    torch.testing.assert_close(z.square().sum(dim=1), torch.full((16,), 99.0, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=30, deadline=None)
@given(size=st.floats(0.1, 100), offset=st.floats(-100, 100), seed=st.integers(0, 1000))
def test_size_of_logits_and_offset_of_the_students_do_not_matter(loss, size, offset, seed):
    student, teacher = normal(2, 8, 20, seed=seed)
    targets = torch.arange(8)
    plain = loss(Outputs(student), Outputs(teacher), targets, Progress(5, 10))
    # Doubling is exact in half precision too, in which pruning compares the teacher's logits.
    moved = loss(Outputs(size * student + offset), Outputs(2 * teacher), targets, Progress(5, 10))
    assert moved.item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_moves_neither_offset_nor_size(loss):
    # A detached deviation would leave a gradient along the size; KL itself has none along the offset.
    student, teacher = normal(2, 8, 20)
    student.requires_grad_()
    loss(Outputs(student), Outputs(teacher), torch.arange(8), Progress(5, 10)).backward()
    gradient = student.grad
    assert gradient is not None
    assert gradient.abs().max() > 1e-3
    assert gradient.sum(dim=1).abs().max() < 1e-15
    kept = gradient != 0
    centred = student.detach() - (student.detach() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
    assert (gradient * centred).sum(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, -3.0, 6e4])
def test_equal_logits_stay_equal_and_finite(dtype, level):
    z = torch.full((2, 7), level, dtype=dtype, requires_grad=True)
    out = standardise(z)
    (out.log_softmax(dim=1) * normal(2, 7).to(dtype)).sum().backward()
    assert (out == out[:, :1]).all()
    assert torch.isfinite(out).all()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()

"""KD, cross-entropy and std with gradients in closed form, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from trainables.losses.common.fused import fused_cross_entropy, fused_kd, std_of_centred
from trainables.losses.logits.kd import kd


def make_logits(seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(4, 7, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_kd_and_its_gradient(temperature):
    student, teacher = make_logits().requires_grad_(), make_logits(1)
    expected = kd(student, teacher, temperature)
    torch.testing.assert_close(fused_kd(student, teacher, temperature), expected, rtol=1e-13, atol=1e-13)
    assert gradcheck(lambda z: fused_kd(z, teacher, temperature), student)


def test_cross_entropy_and_its_gradient():
    z, labels = make_logits().requires_grad_(), torch.randint(7, (4, 3, 5), generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(z, labels, reduction="none")[:, None]
    torch.testing.assert_close(fused_cross_entropy(z, labels[:, None]), expected, rtol=1e-13, atol=1e-13)
    assert gradcheck(lambda z: fused_cross_entropy(z, labels[:, None]), z)


@pytest.mark.parametrize("unbiased", [True, False])
def test_std_and_its_gradient(unbiased):
    z = make_logits()
    z = (z - z.mean(dim=1, keepdim=True)).requires_grad_()
    expected = z.std(dim=1, keepdim=True, correction=int(unbiased))
    torch.testing.assert_close(std_of_centred(z, unbiased), expected, rtol=1e-13, atol=0)
    assert gradcheck(lambda z: std_of_centred(z, unbiased), z)


def test_equal_logits_have_a_std_of_0_without_gradient():
    z = torch.zeros(2, 5, 3, dtype=torch.float64, requires_grad=True)
    std_of_centred(z).sum().backward()
    assert torch.equal(std_of_centred(z), torch.zeros(2, 1, 3, dtype=torch.float64))
    assert torch.equal(z.grad, torch.zeros_like(z))

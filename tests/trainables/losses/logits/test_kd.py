"""Properties of KD alone: temperatures of single samples, and the factor T²."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.losses.logit_losses import (
    logits,
    value_and_gradient,
)
from trainables.losses.logits.dkd import tckd_nckd
from trainables.losses.logits.kd import KD, kd


@pytest.mark.parametrize("function", [kd, lambda *arguments: torch.cat(tckd_nckd(*arguments), dim=1)])
def test_temperature_per_sample_equals_each_sample_at_its_own(function):
    student, teacher, _ = logits(batch=3)
    temperatures = torch.tensor([[3.8], [4.0], [4.2]], dtype=torch.float64)
    together = function(student, teacher, temperatures)
    apart = [function(student[[i]], teacher[[i]], temperatures[i].item()) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-14, atol=0)


def test_squared_temperature_keeps_the_size_of_the_gradient():
    # methods-cifar: over T = 2.4 … 5.6 the gradient's norm moves by a few per cent, without T² by a factor 5.
    student, teacher, targets = logits(batch=64, classes=100, spread=1.0)
    norms = [value_and_gradient(KD(temperature=t), student, teacher, targets)[1].norm() for t in (2.4, 5.6)]
    assert 0.8 < norms[0] / norms[1] < 1.25

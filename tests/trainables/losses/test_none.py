"""The baseline without distillation."""

from __future__ import annotations

import torch

from study.identity import describe
from tests.trainables.losses.logit_losses import (
    MIDDLE,
)
from trainables.losses.none import NoDistillation
from trainables.task import Outputs
from trainables.training.schedules import value_at


def test_no_distillation_adds_zero_without_a_teacher():
    loss = NoDistillation()
    value = loss(Outputs(torch.ones(2, 5, requires_grad=True)), None, torch.zeros(2), MIDDLE)
    assert value.shape == ()
    assert value.item() == 0
    assert not loss.needs_teacher
    assert value_at(loss.task_weight, MIDDLE) == 1.0
    assert describe(loss)["is"] == "NoDistillation"

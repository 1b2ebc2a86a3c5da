"""The logits that losses compare."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.trainables.losses.logit_losses import (
    MIDDLE,
    every_loss,
    logits,
)
from trainables.losses.common.logits import select_logits
from trainables.task import Outputs


@every_loss
def test_what_is_compared_has_the_target_first_and_no_gradient_but_the_students(loss):
    student, teacher, targets = logits()
    student.requires_grad_()
    teacher.requires_grad_()
    z_s, z_t, temperature = select_logits(
        replace(loss, standardise=False), *map(Outputs, (student, teacher)), targets, MIDDLE
    )
    assert torch.equal(z_t[:, :1], teacher.gather(1, targets[:, None]))
    assert z_s.requires_grad
    assert not z_t.requires_grad
    assert isinstance(temperature, float) if loss.adaptive is None else not temperature.requires_grad

"""The learned temperature of CTKD: it climbs the loss, slowly at first, and survives a restart."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainables.losses.logit_losses import logits
from trainables.losses.logits.ctkd import CTKD
from trainables.losses.logits.kd import KD
from trainables.losses.state import make_loss_state
from trainables.task import Outputs
from trainables.training.recipe import Sgd
from trainables.training.schedules import Progress

PLAIN = CTKD(learning_rate=0.5, optimizer=Sgd(momentum=0.0, weight_decay=0.0))


def sides():
    student, teacher, targets = logits()
    return Outputs(student.requires_grad_()), Outputs(teacher), targets


def step(state, progress):
    student, teacher, targets = sides()
    value = state(student, teacher, targets, progress)
    value.backward()
    gradient = state.theta.grad.clone()
    state.step(student, teacher, progress)
    return value.detach(), gradient


@pytest.mark.parametrize(
    ("epoch", "reversal"), [(0, 0.0), (5, 0.5), (2, (1 - math.cos(0.2 * math.pi)) / 2), (10, 1), (99, 1)]
)
def test_theta_takes_a_step_of_sgd_up_the_loss(epoch, reversal):
    state = make_loss_state(PLAIN, "cpu")
    _, gradient = step(state, Progress(epoch, 240))
    assert gradient.abs() > 1e-4
    assert state.theta.item() == pytest.approx(1 + 0.5 * reversal * gradient.item(), rel=1e-6)
    assert state.theta.grad is None


def test_gradient_of_theta_equals_finite_differences():
    student, teacher, targets = sides()
    values = []
    for shift in (-1e-3, 1e-3):
        temperature = 1 + 20 / (1 + math.exp(-1 - shift))
        values.append(KD(temperature=temperature)(student, teacher, targets, Progress(0, 1)).item())
    _, gradient = step(make_loss_state(PLAIN, "cpu"), Progress(0, 240))
    assert gradient.item() == pytest.approx((values[1] - values[0]) / 2e-3, rel=1e-3)


def test_loss_grows_while_the_student_stands_still():
    state = make_loss_state(PLAIN, "cpu")
    values = [step(state, Progress(100, 240))[0].item() for _ in range(20)]
    assert values[-1] > values[0]
    assert values == sorted(values)


def test_training_resumed_from_its_state_equals_one_never_stopped():
    whole, cut = (make_loss_state(CTKD(), "cpu") for _ in range(2))
    expected = [step(whole, Progress(epoch, 10))[0] for epoch in range(6)]
    values = [step(cut, Progress(epoch, 10))[0] for epoch in range(3)]
    resumed = make_loss_state(CTKD(), "cpu")
    resumed.load_state_dict(cut.state_dict())
    values += [step(resumed, Progress(epoch, 10))[0] for epoch in range(3, 6)]
    assert values == expected
    assert torch.equal(whole.theta, resumed.theta)

"""SRFBN: its steps and its feedback."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainables.models.sr.nets import built
from trainables.models.sr.srfbn import SRFBN


def test_steps_of_srfbn_are_those_of_a_net_that_takes_fewer():
    net, low = built(SRFBN(width=4, groups=3, steps=3), 4), torch.rand(2, 3, 5, 6)
    made = net(low)
    assert made.steps.shape == (2, 3, 3, 20, 24)
    for steps in (1, 2, 3):
        shorter = SRFBN(width=4, groups=3, steps=steps).build(4).eval()
        shorter.load_state_dict(net.state_dict())
        told = shorter(low)
        assert told.steps is None
        torch.testing.assert_close(told.image, made.steps[:, steps - 1])
    torch.testing.assert_close(told.features, made.features)
    assert torch.equal(made.image, made.steps[:, -1])


def test_feedback_reaches_the_next_step():
    first, second, *_ = built(SRFBN(width=4, groups=2, steps=2), 4)(torch.rand(1, 3, 6, 6)).steps[0]
    assert (first - second).abs().max() > 1e-5


def test_initial_weights_are_those_of_the_authors_code():
    """He et al.'s normal distribution for convolutions of both directions, biases of 0, slopes of 0.2."""
    net = built(SRFBN(width=32, groups=2), 4)
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 12
    for layer in convolutions:
        inputs = layer.weight.shape[1] * layer.weight.shape[2] ** 2
        assert float(layer.weight.detach().std()) == pytest.approx((2 / inputs) ** 0.5, rel=0.1)
        assert not layer.bias.detach().any()
    slopes = [layer.weight.item() for layer in net.modules() if isinstance(layer, nn.PReLU)]
    assert slopes == pytest.approx([0.2] * 11)

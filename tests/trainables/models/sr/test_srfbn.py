"""SRFBN: its steps and its feedback."""

from __future__ import annotations

import torch

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

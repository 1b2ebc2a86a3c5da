"""SmallSR with a dictionary: boxes, atoms and weights."""

from __future__ import annotations

import pytest
import torch

from study.errors import InputError
from tests.trainables.models.sr.nets import boxes, built, filled
from trainables.models.sr.small_sr import SmallSR


@torch.no_grad()
def test_images_of_a_batch_go_with_their_own_boxes():
    net = built(SmallSR(4, atoms=3)).double().eval()
    low, order = torch.rand(3, 3, 8, 8).double(), torch.tensor([2, 0, 1])
    made, permuted = net(low, boxes(3)), net(low[order], boxes(3)[order])
    torch.testing.assert_close(permuted.image, made.image[order], rtol=0, atol=1e-12)
    alone = net(low[1:2], boxes(3)[1:2])
    torch.testing.assert_close(alone.image, made.image[1:2], rtol=0, atol=1e-12)
    assert (net(low, boxes(3)[order]).image - made.image).abs().max() > 1e-6


def test_dictionary_that_was_never_filled_is_refused():
    net, low = SmallSR(4, atoms=3).build(8), torch.rand(1, 3, 8, 8)
    with pytest.raises(InputError, match="has no left_eye"):
        net(low, boxes(1))
    filled(net)
    net.dictionary.nose.zero_()
    with pytest.raises(InputError, match="has no nose"):
        net(low, boxes(1))


def test_weights_carry_their_dictionary():
    net, other = built(SmallSR(4, atoms=3)).eval(), SmallSR(4, atoms=3).build(8).eval()
    other.load_state_dict(net.state_dict())
    low, box = torch.rand(1, 3, 8, 8), boxes(1).float()
    assert torch.equal(other(low, box).image, net(low, box).image)


def test_patches_of_a_dictionary_are_seen_by_the_encoder_that_learns():
    net = built(SmallSR(4, atoms=3)).eval()
    low, box = torch.rand(1, 3, 8, 8), boxes(1).float()
    before = net(low, box).image
    filled(net, seed=2)
    assert (net(low, box).image - before).abs().max() > 1e-6
    net.dictionary.mouth.requires_grad_(True)
    net(low, box).image.sum().backward()
    assert net.dictionary.mouth.grad.abs().max() > 0


def test_boxes_are_needed_where_there_is_a_dictionary():
    with pytest.raises(InputError, match="boxes"):
        built(SmallSR(4, atoms=3))(torch.rand(1, 3, 8, 8), None)

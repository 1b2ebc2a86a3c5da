"""The net on VGG-19: parameters to the unit, its dictionary, and its layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.trainables.models.sr.nets import boxes, filled
from trainables.models.sr.component_transfer import (
    ComponentTransfer,
    SelfTransfer,
    get_dictionary,
)
from trainables.models.sr.dictionary_sr import Dilated, ModulatedUp, VggSR, blur
from trainables.task import count_parameters


@pytest.fixture(scope="module")
def vgg_net() -> nn.Module:
    """The one net of full size, VGG's weights random, with a dictionary of noise."""
    torch.manual_seed(0)
    return filled(VggSR(atoms=2, imagenet=False).build(8))


def trained(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def test_parts_of_the_vgg_net_have_their_parameters_to_the_unit(vgg_net):
    # as counted in the published generator: 20.02 million frozen, 28.32 in dilated convolutions, 21.13 in the four
    # doublings, 0.19 in the tail, 43.66 in confidences, which the student does not have
    parts = {name: count_parameters(part) for name, part in vgg_net.named_children()}
    assert parts == {
        "vgg": 20_024_384,
        "dictionary": 0,
        "transfers": 43_658_240,
        "refinements": 0,
        "dilated": 28_316_160,
        "ups": 21_128_832,
        "last": 184_640,
        "rgb": 1_731,
    }
    assert (count_parameters(vgg_net), trained(vgg_net)) == (113_313_987, 93_289_603)
    with torch.device("meta"):
        student = VggSR(imagenet=False).build(8)
    assert (count_parameters(student), trained(student)) == (69_655_747, 49_631_363)


def test_control_has_the_teachers_parameters_and_no_atoms(vgg_net):
    control = VggSR(control=True, imagenet=False).build(8)
    assert (count_parameters(control), trained(control)) == (count_parameters(vgg_net), trained(vgg_net))
    assert trained(control) / (trained(control) - 43_658_240) == pytest.approx(1.88, abs=0.005)
    assert control.dictionary is None
    assert not any("dictionary" in name for name in control.state_dict())


def test_features_of_the_control_pass_four_residual_blocks():
    torch.manual_seed(0)
    transfer, x = SelfTransfer(4).eval(), torch.rand(2, 4, 5, 6)
    expected = x
    for block in transfer.blocks:
        expected = expected + block(expected)
    assert torch.equal(transfer(x), expected)
    assert count_parameters(transfer) == count_parameters(ComponentTransfer(4, 2))


def test_vgg_net_restores_with_and_without_its_dictionary(vgg_net, monkeypatch):
    low, box = torch.rand(1, 3, 8, 8), boxes(1).float()
    made = vgg_net(low, box)
    assert made.image.shape == (1, 3, 64, 64)
    assert made.features.shape == (1, 64, 64, 64)
    assert ((made.image >= 0) & (made.image <= 1)).all()
    made.image.mean().backward()
    still = {name.split(".")[0] for name, parameter in vgg_net.named_parameters() if parameter.grad is None}
    assert still == {"vgg"}
    vgg_net.zero_grad()
    with torch.no_grad():
        monkeypatch.setitem(vgg_net._modules, "dictionary", None)
        student = vgg_net(low)
    assert student.features.shape == made.features.shape
    assert not torch.equal(student.image, made.image)


def test_parts_of_the_vgg_dictionary_are_the_sizes_at_each_tap(vgg_net):
    shapes = {part.name: tuple(get_dictionary(vgg_net).atoms(part).shape) for part in get_dictionary(vgg_net).parts}
    assert len(shapes) == 16
    assert shapes["left_eye_conv2_2"] == (2, 128, 20, 20)
    assert shapes["mouth_conv3_4"] == (2, 256, 14, 14)
    assert shapes["nose_conv4_4"] == (2, 512, 3, 3)
    assert shapes["right_eye_conv5_4"] == (2, 512, 3, 3)  # of 2.5 pixels


def test_dilated_convolutions_see_nine_pixels_each_way():
    # twice 4, and 1 of the convolution that joins the branches
    torch.manual_seed(0)
    dilated = Dilated(2)
    x = torch.rand(1, 2, 25, 25, requires_grad=True)
    (gradient,) = torch.autograd.grad(dilated(x)[0, :, 12, 12].sum(), x)
    reached = gradient.abs().sum(dim=(0, 1)).nonzero()
    assert reached.min(dim=0).values.tolist() == [3, 3]
    assert reached.max(dim=0).values.tolist() == [21, 21]
    dilated.join.weight.data.zero_()
    torch.testing.assert_close(dilated(x), x + dilated.join.bias[:, None, None])


def test_style_multiplies_and_shifts_what_is_doubled():
    torch.manual_seed(0)
    up = ModulatedUp(3, 4, style=2)
    x, style = torch.rand(1, 3, 6, 5), torch.rand(1, 2, 6, 5)
    for name, value in (("factor", 3.0), ("shift", 0.5)):
        last = [layer for layer in getattr(up, name) if isinstance(layer, nn.Conv2d)][-1]
        last.weight.data.zero_()
        last.bias.data.fill_(value)
    expected = up.up(3 * up.conv(blur(x)) + torch.sigmoid(torch.tensor(0.5)))
    torch.testing.assert_close(up(x, style), expected)
    assert expected.shape == (1, 4, 12, 10)


def test_blur_is_binomial():
    kernel = blur(F.pad(torch.ones(1, 1, 1, 1), [2] * 4))[0, 0, 1:4, 1:4]
    assert torch.equal(kernel, torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16)
    assert torch.equal(blur(torch.ones(1, 2, 3, 4)), torch.ones(1, 2, 3, 4))

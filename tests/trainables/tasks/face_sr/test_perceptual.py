"""The perceptual loss, against torchvision's VGG."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

from trainables.models.backbones import vgg19
from trainables.models.backbones.vgg19 import AFTER_RELU, Vgg19
from trainables.tasks.face_sr.perceptual import perceptual_error


@pytest.fixture(scope="module")
def vgg() -> tuple[Vgg19, nn.Sequential]:
    """Ours and torchvision's, of the same random weights, in float64."""
    torch.manual_seed(0)
    theirs = make_layers(cfgs["E"]).double()
    ours = Vgg19(tuple(AFTER_RELU.values())).double()
    ours.load_state_dict({f"features.{name}": tensor for name, tensor in theirs.state_dict().items()})
    for name, values in (("mean", vgg19.IMAGENET_MEAN), ("std", vgg19.IMAGENET_STD)):  # which were rounded to float32
        getattr(ours, name).copy_(torch.tensor(values, dtype=torch.float64)[:, None, None])
    return ours, theirs


def test_perceptual_error_is_a_sum_over_layers_of_torchvisions_vgg(vgg):
    ours, theirs = vgg
    image, target = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    expected = 0.0
    with torch.no_grad():
        for number in AFTER_RELU.values():
            layers = theirs[: number + 1]
            seen, wanted = (
                layers(normalize(x, vgg19.IMAGENET_MEAN, vgg19.IMAGENET_STD)).numpy() for x in (image, target)
            )
            expected += ((seen - wanted) ** 2).mean()
        value = perceptual_error(ours, image, target)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_perceptual_gradient_reaches_the_image_alone(vgg):
    image, target = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    image.requires_grad_()
    target.requires_grad_()
    perceptual_error(vgg[0], image, target, "l2norm").backward()
    assert image.grad.abs().max() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in vgg[0].parameters())

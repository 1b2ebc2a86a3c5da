"""Nets are placed so that no shape of a convolution lets oneDNN write beyond its buffers."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainables.training.nets import to_device

TRAIN_EACH_SHAPE = """
import os, torch
from trainables.training.nets import to_device

def train(channels, outputs, pixels, stride):
    torch.set_num_threads(1)
    conv = to_device(torch.nn.Sequential(torch.nn.Conv2d(channels, outputs, 1, stride, bias=False)), "cpu")
    for _ in range(STEPS):
        images = torch.randn(4, channels, pixels, pixels).to(memory_format=torch.channels_last).requires_grad_()
        conv(images).sum().backward()

for stride in STRIDES:
    for channels, outputs in CHANNELS:
        child = os.fork()
        if child == 0:
            for pixels in PIXELS:
                train(channels, outputs, pixels, stride)
            os._exit(0)
        if status := os.waitpid(child, 0)[1]:
            print(stride, channels, outputs, "ended with", status)
"""

STEPS = 4
"""Without `to_device`, each shape that crashes within twelve steps crashes within four."""
FEW = {"STRIDES": (2, (1, 2)), "CHANNELS": ((3, 8), (8, 16), (12, 24)), "PIXELS": (64, 112)}
MANY = {
    "STRIDES": (2, (2, 1), (1, 2), 3),
    "CHANNELS": ((1, 8), (3, 8), (4, 8), (8, 16), (12, 24), (15, 16), (16, 32), (64, 128)),
    "PIXELS": (8, 32, 48, 64, 112, 224),
}


@pytest.mark.parametrize("shapes", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_no_strided_pointwise_convolution_crashes(shapes: dict[str, Any]) -> None:
    script = "\n".join(f"{name} = {value}" for name, value in {"STEPS": STEPS, **shapes}.items()) + TRAIN_EACH_SHAPE
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stderr


def gradients(net: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the outputs, and the gradients of a weighted sum of them with respect to inputs and weights."""
    images = images.clone(memory_format=torch.channels_last).requires_grad_()
    outputs = net(images)
    weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    return [outputs, *torch.autograd.grad((outputs * weights).sum(), [images, *net.parameters()])]


@pytest.mark.parametrize("stride", [2, (2, 1), 3])
@pytest.mark.parametrize("wrap", [nn.Sequential, spectral_norm])
def test_striding_first_keeps_values_and_gradients(stride: int | tuple[int, int], wrap: type[nn.Sequential]) -> None:
    torch.manual_seed(0)
    plain = wrap(nn.Conv2d(5, 8, 1, stride)).eval().to(memory_format=torch.channels_last)
    images = torch.randn(3, 5, 9, 7)
    expected = gradients(deepcopy(plain), images)  # of so few pixels that nothing crashes
    placed = to_device(plain, "cpu")
    for _ in range(2):  # placing a net twice strides once
        for value, its_expected in zip(gradients(placed, images), expected, strict=True):
            torch.testing.assert_close(value, its_expected, rtol=1e-5, atol=2e-6)
        placed = to_device(deepcopy(placed), "cpu")


def test_other_convolutions_are_left_alone() -> None:
    convs = [
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Conv2d(16, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1, stride=2, groups=2),
        nn.Conv2d(4, 8, 1, stride=2, padding=1),
    ]
    strides = [conv.stride for conv in convs]
    to_device(nn.ModuleList(convs), "cpu")
    assert [conv.stride for conv in convs] == strides

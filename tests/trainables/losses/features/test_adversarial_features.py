"""Adversarial feature distillation: its loss and its discriminator, against numpy and Adam's definition."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from tests.trainables.losses.feature_losses import (
    ADVERSARIAL,
    NORMED,
    START,
    exact,
    maps,
    outputs,
    running,
)
from trainables.losses.features.adversarial_features import PatchDiscriminator
from trainables.task import count_parameters
from trainables.training.schedules import Progress, Staircase


def reference_judgement(net: nn.Module, features: np.ndarray) -> np.ndarray:
    """The discriminator in numpy and scipy: convolutions by their definition, stride by taking every other place."""
    x = features
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        weight, bias = (tensor.detach().numpy() for tensor in (layer.weight, layer.bias))
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        convolved = [
            [
                correlate(image, kernel, mode="valid", method="direct")[0] + b
                for kernel, b in zip(weight, bias, strict=True)
            ]
            for image in padded
        ]
        x = np.array(convolved)
        if layer is not layers[-1]:
            x = x[:, :, ::2, ::2]
            x = np.where(x > 0, x, 0.2 * x)
    return x


@pytest.mark.parametrize("weight", [1e-3, Staircase(0.5, 2.0, stages=2)])
def test_adversarial_loss_equals_numpy(weight):
    made = exact(replace(ADVERSARIAL, weight=weight))
    student, progress = maps(), Progress(9, 10)
    judged = reference_judgement(made.discriminator, student.numpy())
    assert judged.shape == (2, 1, 2, 3)
    expected = (1e-3 if weight == 1e-3 else 2.0) * ((judged - 1) ** 2).mean()
    value = made(outputs(student), outputs(maps(seed=1)), None, progress)
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_discriminator_takes_one_step_of_adam_down_its_own_loss():
    made = exact(replace(ADVERSARIAL, learning_rate=Staircase(0.5, 0.01, stages=2)))
    student, teacher = maps(), maps(seed=1)
    twin = copy.deepcopy(made.discriminator)
    fake, real = (reference_judgement(twin, features.numpy()) for features in (student, teacher))
    loss = (twin(teacher) - 1).square().mean() + twin(student).square().mean()
    assert loss.item() == pytest.approx(((real - 1) ** 2).mean() + (fake**2).mean(), rel=1e-12)
    loss.backward()
    made.step(outputs(student), outputs(teacher), Progress(9, 10))
    for ours, theirs in zip(made.discriminator.parameters(), twin.parameters(), strict=True):
        # Kingma & Ba 2015, algorithm 1, first step: both moments are those of one gradient
        gradient = theirs.grad.numpy()
        expected = theirs.detach().numpy() - 0.01 * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_discriminator_learns_to_tell_teacher_from_student():
    made = running(replace(ADVERSARIAL, learning_rate=1e-2))
    student, teacher = maps(dtype=torch.float32), maps(seed=1, dtype=torch.float32) + 1
    for _ in range(60):
        made.step(outputs(student), outputs(teacher), START)
    with torch.no_grad():
        assert made.discriminator(teacher).mean() > 0.8
        assert made.discriminator(student).mean() < 0.2


def test_spectral_norm_bounds_every_convolution():
    made = running(NORMED)
    for step in range(30):
        made.step(outputs(maps(seed=step).float()), outputs(maps(seed=-step - 1 + 1000).float()), START)
    for layer in made.discriminator.eval():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)


def test_published_discriminator_halves_four_times():
    with torch.device("meta"):
        net = PatchDiscriminator().build()
        assert net(torch.empty(1, 64, 256, 256)).shape == (1, 1, 16, 16)
        # 16·64·64 + 64, and so on by doubled widths; 512·9 + 1
        assert count_parameters(net) == 65_600 + 131_200 + 524_544 + 2_097_664 + 4_609

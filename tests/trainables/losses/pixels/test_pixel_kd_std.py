"""Properties of KD-STD alone, which compares standardised logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.losses.pixel_losses import of_one_size, value_of
from trainables.losses.common.logits import standardise
from trainables.losses.pixels.pixel_kd_std import PixelKDStd


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100), st.floats(0.1, 100), st.integers(0, 1000))
def test_kd_std_does_not_see_the_size_of_either_nets_logits(size, teachers_size, seed):
    student, teacher, labels = of_one_size(seed=seed)
    resized = value_of(PixelKDStd(), size * student, teachers_size * teacher, labels)
    assert resized.item() == pytest.approx(value_of(PixelKDStd(), student, teacher, labels).item(), rel=1e-5)


def test_unbiased_deviation_is_a_higher_temperature():
    sides = of_one_size()
    warmer = math.sqrt(19 / 18)
    unbiased = value_of(PixelKDStd(temperature=1.5), *sides)
    biased = value_of(PixelKDStd(temperature=1.5 * warmer, unbiased=False), *sides)
    assert (biased / unbiased).item() == pytest.approx(warmer**2, rel=1e-6)
    assert abs(value_of(PixelKDStd(temperature=1.5, unbiased=False), *sides) / unbiased - 1) > 1e-3


@pytest.mark.parametrize(("temperature", "bound"), [(1.0, 0.8128), (2.0, 0.3294)])
def test_standardised_teacher_is_never_sure(temperature, bound):
    # the largest of 19 standardised logits is at most 18/√19 = 4.13, where all others are equal
    z = standardise(F.one_hot(torch.tensor([0]), 19).double() * 50)
    assert z.max().item() == pytest.approx(18 / math.sqrt(19), rel=1e-6)
    assert torch.softmax(z / temperature, dim=1).max().item() == pytest.approx(bound, abs=1e-4)

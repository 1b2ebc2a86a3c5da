"""Properties of LDT alone, which scales the student's logits to the teacher's spread."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.losses.pixel_losses import of_one_size, std, value_and_gradient, value_of
from trainables.losses.logits.kd import kd
from trainables.losses.pixels.ldt import LDT


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_ldt_is_kd_with_a_temperature_of_the_student_at_each_pixel(temperature):
    student, teacher, labels = of_one_size()
    of_student = temperature * std(student) / std(teacher)
    expected = temperature**2 * kd(student / of_student, teacher / temperature, 1.0).mean()
    assert value_of(LDT(temperature), student, teacher, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_biased_deviations_would_give_the_same_ldt():
    student, teacher, labels = of_one_size()
    s_s, s_t = (z.std(dim=1, keepdim=True, correction=0) for z in (student, teacher))
    biased = kd((student - student.mean(dim=1, keepdim=True)) / s_s * s_t, teacher, 1.0).mean()
    assert value_of(LDT(), student, teacher, labels).item() == pytest.approx(biased.item(), rel=1e-6)


def test_teachers_mean_added_or_not_gives_the_same_ldt():
    student, teacher, labels = of_one_size()
    centred = teacher - teacher.mean(dim=1, keepdim=True)
    transformed = (student - student.mean(dim=1, keepdim=True)) / std(student) * std(teacher)
    for mean in (0, teacher.mean(dim=1, keepdim=True)):
        value = kd(transformed + mean, teacher, 1.0).mean()
        assert value.item() == pytest.approx(value_of(LDT(), student, centred, labels).item(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100), st.integers(0, 1000))
def test_ldt_does_not_see_the_size_of_the_students_logits_but_of_the_teachers(size, seed):
    student, teacher, labels = of_one_size(seed=seed)
    sizes = size * torch.rand(2, 1, 5, 5, dtype=torch.float64) + 0.05
    value = value_of(LDT(), student, teacher, labels).item()
    assert value_of(LDT(), sizes * student, teacher, labels).item() == pytest.approx(value, rel=1e-4)
    assert value_of(LDT(), student, 2 * teacher, labels).item() != pytest.approx(value, rel=1e-2)


def test_ldt_is_zero_only_for_a_student_of_the_teachers_form():
    _, teacher, labels = of_one_size()
    sizes = 0.1 + torch.rand(2, 1, 5, 5, dtype=torch.float64)
    assert value_of(LDT(), sizes * teacher + 3, teacher, labels).item() == pytest.approx(0, abs=1e-10)
    one_logit_off = teacher.clone()
    one_logit_off[0, 4, 2, 2] += 1
    assert value_of(LDT(), one_logit_off, teacher, labels) > 1e-6
    assert value_of(LDT(), -teacher, teacher, labels) > 1


def test_detached_statistics_change_the_gradient_not_the_value():
    sides = of_one_size()
    value, gradient = value_and_gradient(LDT(), *sides)
    detached_value, detached_gradient = value_and_gradient(LDT(detach_statistics=True), *sides)
    assert torch.equal(value, detached_value)
    assert (gradient - detached_gradient).abs().max() > 1e-4
    # the loss does not see the logits' size: only constants for statistics leave a gradient along it
    centred = sides[0] - sides[0].mean(dim=1, keepdim=True)
    assert (gradient * centred).sum(dim=1).abs().max() < 1e-8
    assert (detached_gradient * centred).sum(dim=1).abs().max() > 1e-4


def test_detached_gradient_is_that_of_kd_at_the_students_temperatures():
    student, teacher, labels = of_one_size()
    temperatures = std(student) / std(teacher)
    z = student.clone().requires_grad_()
    (expected,) = torch.autograd.grad(kd(z / temperatures, teacher, 1.0).mean(), z)
    _, gradient = value_and_gradient(LDT(detach_statistics=True), student, teacher, labels)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)

"""Conformance of the field's losses on logits."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from study.errors import InputError
from study.identity import describe
from study.task import SingleWorkerMethod
from tests.trainables.losses.baseline_losses import LOSSES, every_loss, reference
from tests.trainables.losses.logit_losses import MIDDLE, assert_exact_under_autocast, logits, value_and_gradient
from trainables.losses.logits.ctkd import CTKD
from trainables.task import Outputs
from trainables.training.schedules import Progress


@every_loss
@pytest.mark.parametrize(("batch", "classes"), [(16, 20), (1, 20), (5, 2)])
def test_loss_equals_the_direct_form_in_numpy(loss, batch, classes):
    for epoch, spread in ((0, 5), (79, 5), (45, 0.1), (45, 60)):
        student, teacher, targets = logits(batch, classes, spread)
        progress = Progress(epoch, 80)
        value = loss(Outputs(student), Outputs(teacher), targets, progress)
        expected = reference(loss, student, teacher, targets, progress)
        assert value.shape == ()
        assert value.dtype == torch.float64
        # CTKD's temperature is float32, and at most an ulp of it off
        tolerance = 1e-6 if isinstance(loss, CTKD) else 1e-10
        assert value.item() == pytest.approx(expected, rel=tolerance, abs=1e-10), (epoch, spread)


@every_loss
def test_gradient_equals_finite_differences(loss):
    student, teacher, targets = logits(batch=3, classes=6, spread=2.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(Outputs(z), Outputs(teacher), targets, MIDDLE), student)


@every_loss
def test_teacher_receives_no_gradient_and_student_some(loss):
    student, teacher, targets = logits()
    student.requires_grad_()
    teacher.requires_grad_()
    loss(Outputs(student), Outputs(teacher), targets, MIDDLE).backward()
    assert student.grad.abs().max() > 1e-5
    assert teacher.grad is None


@every_loss
def test_loss_under_autocast_is_float32_and_exact(loss):
    assert_exact_under_autocast(loss)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student_level", [-1e4, 0.0, 1e4])
def test_extreme_and_equal_logits_give_finite_loss_and_gradient(loss, dtype, student_level):
    teacher = torch.full((2, 10), -1e4, dtype=dtype)
    teacher[:, 3] = 1e4
    student = torch.full((2, 10), student_level, dtype=dtype)
    student[:, 3] = -student_level
    value, gradient = value_and_gradient(loss, student, teacher, torch.tensor([3, 5]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@every_loss
def test_one_class_is_refused(loss):
    student, teacher, targets = logits(classes=2)
    with pytest.raises(InputError, match="logits of 1 class"):
        loss(Outputs(student[:, :1]), Outputs(teacher[:, :1]), torch.zeros_like(targets), MIDDLE)


@pytest.mark.parametrize("name", ["WTTM", "MLKD", "CTKD"])
def test_student_equal_to_teacher_gives_zero(name):
    _, teacher, targets = logits(spread=1.0)
    loss = replace(LOSSES[name], temperature=1.0) if name == "WTTM" else LOSSES[name]
    assert loss(Outputs(teacher), Outputs(teacher), targets, MIDDLE).item() == pytest.approx(0, abs=1e-12)


def test_dist_of_the_teacher_itself_is_zero_but_for_its_epsilon():
    _, teacher, targets = logits(spread=1.0)
    assert LOSSES["DIST"](Outputs(teacher), Outputs(teacher), targets, MIDDLE).item() == pytest.approx(0, abs=1e-3)


@every_loss
def test_numbers_out_of_range_are_refused(loss):
    for field in fields(loss):
        if isinstance(getattr(loss, field.name), float):
            with pytest.raises(InputError, match=field.name):
                replace(loss, **{field.name: -1.0})


@every_loss
def test_loss_describes_all_its_settings(loss):
    assert set(describe(loss)) >= {"is", *(field.name for field in fields(loss))}
    assert loss.needs_teacher


def test_losses_that_compare_samples_need_one_worker():
    single = {type(loss).__name__ for loss in LOSSES.values() if isinstance(loss, SingleWorkerMethod)}
    assert single == {"DIST", "MLKD", "CTKD"}


@every_loss
def test_batch_is_the_mean_of_its_samples_unless_it_needs_one_worker(loss):
    student, teacher, targets = logits(batch=5)
    value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    singles = [loss(Outputs(student[[i]]), Outputs(teacher[[i]]), targets[[i]], MIDDLE) for i in range(5)]
    is_mean = value.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-10)
    assert is_mean == (not isinstance(loss, SingleWorkerMethod) or isinstance(loss, CTKD))

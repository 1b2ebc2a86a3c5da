"""Conformance of all losses on logits, under every combination of add-ons."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from study.identity import describe
from study.space.domains import resolve_corners, uniform
from tests.trainables.losses.logit_losses import (
    LOSSES,
    MIDDLE,
    assert_exact_under_autocast,
    every_loss,
    logits,
    reference,
    value_and_gradient,
)
from trainables.losses.common.pruning import select_kept_classes
from trainables.task import Outputs
from trainables.training.schedules import Progress, Staircase, value_at

every_loss_of_single_samples = pytest.mark.parametrize(
    "loss", [pytest.param(loss, id=name) for name, loss in LOSSES.items() if loss.adaptive is None]
)


@every_loss
def test_loss_equals_the_direct_form_in_numpy(loss):
    for epoch, spread in ((0, 5), (2, 5), (45, 5), (79, 5), (79, 0.1), (45, 60)):
        student, teacher, targets = logits(spread=spread)
        progress = Progress(epoch, 80)
        value = loss(Outputs(student), Outputs(teacher), targets, progress)
        expected = reference(loss, student, teacher, targets, progress)
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12), (epoch, spread)


@every_loss
def test_gradient_equals_finite_differences(loss):
    student, teacher, targets = logits(batch=3, classes=6)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(Outputs(z), Outputs(teacher), targets, MIDDLE), student)


@every_loss
def test_student_equal_to_teacher_gives_zero_and_no_gradient(loss):
    _, teacher, targets = logits()
    value, gradient = value_and_gradient(loss, teacher, teacher, targets)
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert gradient.abs().max() < 1e-15


@every_loss
def test_student_unlike_teacher_gives_a_positive_loss(loss):
    value, gradient = value_and_gradient(loss, *logits())
    assert value > 0.01
    assert gradient.abs().max() > 1e-4


@every_loss
def test_teacher_receives_no_gradient(loss):
    student, teacher, targets = logits()
    student.requires_grad_()
    teacher.requires_grad_()
    loss(Outputs(student), Outputs(teacher), targets, MIDDLE).backward()
    assert student.grad is not None
    assert teacher.grad is None


@every_loss
def test_order_within_the_batch_does_not_matter(loss):
    # No two samples are equally far apart here; what ties do under DAT is in test_adaptive_temperature.py.
    student, teacher, targets = logits()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    permuted, permuted_gradient = value_and_gradient(loss, student[order], teacher[order], targets[order])
    assert permuted.item() == pytest.approx(value.item(), rel=1e-14)
    torch.testing.assert_close(permuted_gradient, gradient[order], rtol=1e-14, atol=0)


@every_loss_of_single_samples
def test_batch_is_the_mean_of_its_samples(loss):
    student, teacher, targets = logits(batch=5)
    value, _ = value_and_gradient(loss, student, teacher, targets)
    singles = [value_and_gradient(loss, student[[i]], teacher[[i]], targets[[i]])[0] for i in range(5)]
    assert value.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-14)


@every_loss
def test_extreme_logits_give_finite_loss_and_gradient(loss):
    # Gaps of 2e4 and 1e4 at temperatures up to 5.6: over 1,000·T. Row 0 is for, row 1 against the target.
    for dtype, size, agreeing in product((torch.float32, torch.float64), (1e4, 5e3), (True, False)):
        teacher = torch.full((2, 10), -size, dtype=dtype)
        teacher[:, 3] = size
        student = teacher if agreeing else -teacher
        value, gradient = value_and_gradient(loss, student, teacher, torch.tensor([3, 5]))
        assert torch.isfinite(value), (dtype, size, agreeing)
        assert torch.isfinite(gradient).all(), (dtype, size, agreeing)
        assert agreeing or value > (0.1 if loss.standardise else 100), (dtype, size)


@every_loss
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=24, max_size=24))
def test_any_float32_logits_give_a_finite_loss_not_below_zero(loss, values):
    student, teacher = torch.tensor(values, dtype=torch.float32).view(2, 3, 4)
    value, gradient = value_and_gradient(loss, student, teacher, torch.tensor([0, 1, 3]))
    assert torch.isfinite(gradient).all()
    # Rounding of near-equal probabilities may leave a little less than nothing.
    assert -1e-3 <= value.item() < float("inf")


@every_loss
def test_equal_logits_on_both_sides_give_zero(loss):
    flat = torch.zeros(4, 10, dtype=torch.float64)
    value, gradient = value_and_gradient(loss, flat, flat + 3, torch.tensor([0, 1, 2, 9]))
    assert value.item() == pytest.approx(0, abs=1e-15)
    # Standardising flat logits divides by 1e-7: the rounding of a gradient of 0 is 1e7 times as large.
    assert gradient.abs().max() < (1e-8 if loss.standardise else 1e-15)


@every_loss
@pytest.mark.parametrize("flat_side", ["student", "teacher"])
def test_all_equal_logits_on_one_side_give_finite_loss_and_gradient(loss, flat_side):
    student, teacher, targets = logits(batch=5, classes=10)
    for level, dtype in product((0.0, 0.1, -7.0, 6e4), (torch.float32, torch.float64)):
        flat, other = torch.full((5, 10), level, dtype=dtype), teacher if flat_side == "student" else student
        sides = (flat, other.to(dtype)) if flat_side == "student" else (other.to(dtype), flat)
        value, gradient = value_and_gradient(loss, *sides, targets)
        assert torch.isfinite(gradient).all(), (level, dtype)
        expected = reference(loss, *(side.double() for side in sides), targets, MIDDLE)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-3
        assert value.item() == pytest.approx(expected, rel=tolerance), (level, dtype)


@every_loss
def test_batch_of_one_equals_the_direct_form(loss):
    student, teacher, targets = logits(batch=1)
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value.item() == pytest.approx(reference(loss, student, teacher, targets, MIDDLE), rel=1e-12)
    assert gradient.abs().max() > 0


@every_loss
def test_tied_teacher_logits_equal_the_direct_form(loss):
    student, teacher, targets = logits()
    teacher = teacher.div(4).round()
    value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    expected = reference(loss, student, teacher, targets, MIDDLE)
    assert value.item() == pytest.approx(expected, rel=1e-12)


@every_loss
def test_loss_under_autocast_is_float32_and_exact(loss):
    assert_exact_under_autocast(loss)


@every_loss
def test_stored_half_precision_teacher_keeps_the_same_classes(loss):
    student, teacher, targets = logits(batch=64, classes=100, spread=0.5)
    share = value_at(loss.pruning, MIDDLE)
    live, stored = teacher.float(), teacher.half()
    assert torch.equal(select_kept_classes(live, targets, share), select_kept_classes(stored, targets, share))
    live_loss, stored_loss = (loss(Outputs(student), Outputs(z), targets, MIDDLE) for z in (live, stored))
    assert stored_loss.item() == pytest.approx(live_loss.item(), rel=1e-2)


@every_loss
def test_pruned_classes_have_no_influence(loss):
    loss = replace(loss, pruning=0.4)
    student, teacher, targets = logits(batch=8, classes=10)
    columns = torch.cat((targets[:, None], select_kept_classes(teacher, targets, 0.4)), dim=1)
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    kept = torch.zeros(8, 10, dtype=torch.bool).scatter(1, columns, True)
    assert torch.equal(gradient != 0, kept)
    changed, _ = value_and_gradient(loss, torch.where(kept, student, 1e3), teacher, targets)
    assert torch.equal(value, changed)


@every_loss
def test_pruning_equals_the_plain_loss_on_gathered_kept_classes(loss):
    student, teacher, targets = logits(batch=8, classes=10)
    pruned = replace(loss, pruning=0.4)(Outputs(student), Outputs(teacher), targets, MIDDLE)
    columns = torch.cat((targets[:, None], select_kept_classes(teacher, targets, 0.4)), dim=1)
    kept = (Outputs(z.gather(1, columns)) for z in (student, teacher))
    plain = replace(loss, pruning=0.0)(*kept, torch.zeros_like(targets), MIDDLE)
    assert pruned.item() == pytest.approx(plain.item(), rel=1e-14)


@every_loss
def test_two_classes_work_and_one_is_refused(loss):
    student, teacher, targets = logits(classes=2)
    student.requires_grad_()
    value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    (gradient,) = torch.autograd.grad(value, student)
    assert value > 0
    assert gradient.isfinite().all()
    assert loss(Outputs(teacher), Outputs(teacher), targets, MIDDLE).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="logits of 1 class"):
        loss(Outputs(student[:, :1]), Outputs(teacher[:, :1]), torch.zeros_like(targets), MIDDLE)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("temperature", Staircase(4.0, 0.0, stages=2)),
        ("pruning", 1.0),
        ("pruning", -0.1),
        ("pruning", Staircase(0.0, 1.0, stages=4)),
        ("task_weight", -0.5),
        ("task_weight", float("nan")),
        ("standardise", 1),
        ("standardise", "yes"),
        ("adaptive", True),
        ("adaptive", 0.1),
    ],
)
def test_setting_out_of_range_is_refused(setting, value):
    for loss in LOSSES.values():
        with pytest.raises(InputError, match=setting):
            replace(loss, **{setting: value})


@every_loss
def test_domain_is_checked_at_its_ends(loss):
    searched = replace(loss, pruning=Staircase(0.0, uniform(0.1, 1.0), stages=4))
    with pytest.raises(InputError, match="pruning is 1"):
        list(resolve_corners(searched))
    assert len(list(resolve_corners(replace(loss, pruning=uniform(0.0, 0.5))))) == 2


@every_loss
def test_loss_describes_all_its_settings(loss):
    description = describe(loss)
    assert set(description) >= {"is", *(field.name for field in fields(loss))}
    assert loss.needs_teacher

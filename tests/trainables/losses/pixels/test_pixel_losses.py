"""Conformance of all losses on maps of logits."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from study.identity import describe, is_described
from study.space.domains import choice, resolve_corners, uniform
from tests.trainables.losses.pixel_losses import (
    LOSSES,
    MIDDLE,
    every_loss,
    maps,
    of_one_size,
    plain_value_and_gradient,
    reference,
    value_and_gradient,
    value_of,
)
from trainables.losses.common.row_blocks import BLOCK_ELEMENTS
from trainables.losses.pixels.ldt import LDT
from trainables.losses.pixels.pixel_dkd import PixelDKD
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.losses.pixels.pixel_kd_std import PixelKDStd
from trainables.training.schedules import Progress, Staircase, evaluate_schedules


@every_loss
def test_loss_equals_the_direct_form_in_numpy(loss):
    for epoch, spread in ((0, 3), (45, 3), (79, 3), (45, 0.1), (45, 30)):
        sides, progress = maps(spread=spread), Progress(epoch, 80)
        value = value_of(loss, *sides, progress)
        assert value.dtype == torch.float64
        assert value.shape == ()
        expected = reference(loss, *sides, progress)
        assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12), (epoch, spread)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES.values() if not getattr(loss, "detach_statistics", False)])
@pytest.mark.parametrize("rows", [1, 8])
def test_gradient_equals_finite_differences(monkeypatch, loss, rows):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", rows * 5 * 8)
    student, teacher, labels = maps(batch=1, classes=5, size=8)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value_of(loss, z, teacher, labels), student)


@every_loss
@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradient_are_those_of_the_plain_form_whatever_the_blocks(monkeypatch, loss, rows, dtype, tolerance):
    student, teacher, labels = maps(size=32)
    student, teacher = student.to(dtype), teacher.to(dtype)
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", rows * 2 * 19 * 32)
    value, gradient = value_and_gradient(loss, student, teacher, labels)
    plain, plain_gradient = plain_value_and_gradient(loss, student, teacher, labels)
    assert value.dtype == gradient.dtype == dtype
    assert value.item() == pytest.approx(plain.item(), rel=tolerance)
    largest = plain_gradient.abs().max().item()
    torch.testing.assert_close(gradient, plain_gradient, rtol=tolerance, atol=tolerance * largest)


@every_loss
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 21), spread=st.floats(0.01, 30))
def test_loss_is_not_below_zero_and_zero_where_the_student_is_the_teacher(loss, seed, classes, spread):
    student, teacher, labels = maps(classes=classes, size=8, spread=spread, seed=seed)
    assert value_of(loss, student, teacher, labels) >= 0
    value, gradient = value_and_gradient(loss, teacher, teacher, labels)
    # LDT's 1e-7 beside σ_s makes what it compares unequal by that share
    assert value.item() == pytest.approx(0, abs=1e-8)
    assert gradient.abs().max() < 1e-5


@every_loss
def test_student_unlike_teacher_gives_a_positive_loss(loss):
    value, gradient = value_and_gradient(loss, *maps())
    assert value > 0.01
    assert gradient.abs().max() > 1e-4


@every_loss
def test_teacher_receives_no_gradient(loss):
    student, teacher, labels = maps()
    student.requires_grad_()
    teacher.requires_grad_()
    value_of(loss, student, teacher, labels).backward()
    assert student.grad is not None
    assert teacher.grad is None


@every_loss
def test_a_constant_at_each_pixel_changes_nothing(loss):
    student, teacher, labels = maps()
    offsets = [10 * torch.randn(2, 1, side, side, dtype=torch.float64) for side in (3, 6)]
    moved = value_of(loss, student + offsets[0], teacher + offsets[1], labels)
    assert moved.item() == pytest.approx(value_of(loss, student, teacher, labels).item(), rel=1e-12)


@every_loss
def test_order_of_batch_and_classes_does_not_matter(loss):
    student, teacher, labels = maps(batch=5)
    value, gradient = value_and_gradient(loss, student, teacher, labels)
    generator = torch.Generator().manual_seed(1)
    for dim in (0, 1):
        order = torch.randperm(student.shape[dim], generator=generator)
        sides = student.index_select(dim, order), teacher.index_select(dim, order)
        moved = labels.index_select(0, order) if dim == 0 else order.argsort()[labels]
        permuted, permuted_gradient = value_and_gradient(loss, *sides, moved)
        assert permuted.item() == pytest.approx(value.item(), rel=1e-13)
        torch.testing.assert_close(permuted_gradient, gradient.index_select(dim, order), rtol=1e-10, atol=1e-15)


@every_loss
def test_batch_is_the_mean_of_its_images(loss):
    student, teacher, labels = maps(batch=3)
    value = value_of(loss, student, teacher, labels)
    singles = [value_of(loss, student[[i]], teacher[[i]], labels[[i]]) for i in range(3)]
    assert value.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-14)


@every_loss
def test_loss_does_not_depend_on_how_many_pixels_there_are(loss):
    student, teacher, labels = of_one_size()
    value = value_of(loss, student, teacher, labels)
    tiled = value_of(loss, student.repeat(1, 1, 2, 3), teacher.repeat(1, 1, 2, 3), labels.repeat(1, 2, 3))
    assert tiled.item() == pytest.approx(value.item(), rel=1e-13)


@every_loss
def test_what_the_labels_say_matters_to_dkd_alone(loss):
    student, teacher, labels = maps()
    sides = student, teacher
    same = torch.equal(value_of(loss, *sides, labels), value_of(loss, *sides, torch.zeros_like(labels)))
    assert same == (not isinstance(loss, PixelDKD))


@every_loss
def test_one_image_of_one_pixel_equals_the_direct_form(loss):
    sides = of_one_size((1, 19, 1, 1))
    value, gradient = value_and_gradient(loss, *sides)
    assert value.item() == pytest.approx(reference(loss, *sides), rel=1e-12)
    assert gradient.abs().max() > 0


@every_loss
def test_extreme_logits_give_finite_loss_and_gradient(loss):
    for dtype, agreeing in product((torch.float32, torch.float64), (True, False)):
        teacher = torch.full((1, 19, 2, 2), -1e4, dtype=dtype)
        teacher[:, 3] = 1e4
        student = teacher if agreeing else -teacher
        value, gradient = value_and_gradient(loss, student, teacher, torch.zeros(1, 4, 4, dtype=torch.int64))
        assert torch.isfinite(value), (dtype, agreeing)
        assert torch.isfinite(gradient).all(), (dtype, agreeing)
        assert agreeing or value > 0.1, dtype


@every_loss
@pytest.mark.parametrize("flat", ["student", "teacher", "both"])
def test_all_equal_logits_give_finite_loss_and_gradient(loss, flat):
    *nets, labels = of_one_size((2, 19, 3, 3))
    for level, dtype in product((0.0, 0.1, -7.0, 6e4), (torch.float32, torch.float64)):
        student, teacher = (net.to(dtype) for net in nets)
        student = torch.full_like(student, level) if flat != "teacher" else student
        teacher = torch.full_like(teacher, level) if flat != "student" else teacher
        value, gradient = value_and_gradient(loss, student, teacher, labels)
        assert torch.isfinite(gradient).all(), (level, dtype)
        expected = 0 if flat == "both" else reference(loss, student, teacher, labels)
        tolerance = 1e-3 if dtype == torch.float32 else 1e-12
        assert value.item() == pytest.approx(expected, rel=tolerance, abs=1e-6), (level, dtype)


@every_loss
def test_loss_under_autocast_is_float32_and_exact(loss):
    student, teacher, labels = maps()
    student, teacher = student.bfloat16(), teacher.half()
    exact = value_of(loss, student.float(), teacher.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = value_of(loss, student, teacher, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


@every_loss
def test_half_precision_teacher_gives_nearly_the_same_loss(loss):
    student, teacher, labels = maps()
    live, stored = (value_of(loss, student.float(), z, labels) for z in (teacher.float(), teacher.half()))
    assert stored.item() == pytest.approx(live.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.0),
        ("temperature", Staircase(4.0, 0.0, stages=2)),
        ("temperature", float("inf")),
        ("weight", -1.0),
        ("task_weight", float("nan")),
        ("resolution", "half"),
        ("resolution", None),
    ],
)
def test_setting_out_of_range_is_refused(setting, value):
    for loss in LOSSES.values():
        with pytest.raises(InputError, match=setting):
            replace(loss, **{setting: value})


@pytest.mark.parametrize("loss", [PixelKD, PixelDKD])
def test_unknown_transformation_is_refused(loss):
    with pytest.raises(InputError, match="transform is 'LDT'; allowed are None, 'ldt', 'standardise'"):
        loss(transform="LDT")


@pytest.mark.parametrize(("setting", "value"), [("alpha", -1.0), ("beta", Staircase(1.0, -1.0, stages=2))])
def test_weights_of_dkd_below_zero_are_refused(setting, value):
    with pytest.raises(InputError, match=setting):
        PixelDKD(**{setting: value})


@pytest.mark.parametrize(("loss", "setting"), [(PixelKDStd, "unbiased"), (LDT, "detach_statistics")])
def test_switch_that_is_no_truth_value_is_refused(loss, setting):
    with pytest.raises(InputError, match=f"{setting} is 1; allowed is True, False"):
        loss(**{setting: 1})


@every_loss
def test_settings_can_be_searched(loss):
    searched = replace(loss, temperature=uniform(1.0, 8.0), resolution=choice("full", "student"))
    assert {corner.resolution for corner in resolve_corners(searched)} == {"full", "student"}
    with pytest.raises(InputError, match="temperature is 0"):
        list(resolve_corners(replace(loss, temperature=uniform(0.0, 8.0))))


@every_loss
def test_loss_describes_all_its_settings_and_what_moves(loss):
    assert set(describe(loss)) >= {"is", *(field.name for field in fields(loss) if is_described(field, loss))}
    assert loss.needs_teacher
    numbers = [field.name for field in fields(loss) if field.name in ("temperature", "weight", "alpha", "beta")]
    moving = {name for name in numbers if not isinstance(getattr(loss, name), float)}
    assert set(evaluate_schedules(loss, MIDDLE)) == moving


def test_plain_kd_is_described_as_before_transformations():
    assert "transform" not in describe(PixelKD())
    assert describe(PixelKD(transform="ldt"))["transform"] == "ldt"


def test_transformations_over_kd_are_ldt_and_kd_std():
    sides = maps()
    for one, other in ((LDT(2.0), PixelKD(2.0, transform="ldt")), (PixelKDStd(), PixelKD(transform="standardise"))):
        for value, expected in zip(value_and_gradient(one, *sides), value_and_gradient(other, *sides), strict=True):
            assert torch.equal(value, expected)


def test_transformation_can_be_searched():
    searched = PixelDKD(transform=choice(None, "ldt", "standardise"))
    assert {corner.transform for corner in resolve_corners(searched)} >= {None, "standardise"}

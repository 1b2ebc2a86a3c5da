"""Conformance of the losses on maps of logits that compare whole maps: CWD, and DIST per pixel."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from study.errors import InputError
from study.identity import describe
from study.space.domains import choice, resolve_corners, uniform
from study.task import SingleWorkerMethod
from tests.trainables.losses.baseline_losses import correlation
from tests.trainables.losses.pixel_losses import (
    MIDDLE,
    MOVING,
    kl,
    maps,
    of_one_size,
    reference_upsampled,
    softmax,
    value_and_gradient,
    value_of,
)
from trainables.losses.logits.dist import DIST
from trainables.losses.pixels.cwd import CWD
from trainables.losses.pixels.pixel_dist import PixelDIST
from trainables.training.schedules import Progress, Staircase, evaluate_schedules, value_at

LOSSES = {
    "CWD": CWD(),
    "CWD, full": CWD(temperature=MOVING, weight=2.0, resolution="full"),
    "DIST": PixelDIST(),
    "DIST, full": PixelDIST(temperature=MOVING, weight=2.0, beta=0.5, gamma=3.0, resolution="full"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def reference(loss, student, teacher, labels, progress=MIDDLE):
    """The loss map by map in numpy."""
    size = tuple(labels.shape[1:]) if loss.resolution == "full" else tuple(student.shape[2:])
    t = value_at(loss.temperature, progress)
    z_s, z_t = (  # (B, K, H·W)
        np.stack([reference_upsampled(z, size).reshape(len(z), -1) for z in side.double().numpy()]) / t
        for side in (student, teacher)
    )
    if isinstance(loss, CWD):
        pairs = zip(z_s.reshape(-1, z_s.shape[2]), z_t.reshape(-1, z_t.shape[2]), strict=True)
        return value_at(loss.weight, progress) * t**2 * np.mean([kl(softmax(b), softmax(a)) for a, b in pairs])
    y_s, y_t = (np.stack([softmax(pixel) for image in z for pixel in image.T]) for z in (z_s, z_t))  # (B·H·W, K)
    inter = 1 - np.mean([correlation(a, b) for a, b in zip(y_s, y_t, strict=True)])
    intra = 1 - np.mean([correlation(a, b) for a, b in zip(y_s.T, y_t.T, strict=True)])
    return value_at(loss.weight, progress) * t**2 * (loss.beta * inter + loss.gamma * intra)


@every_loss
@pytest.mark.parametrize(("epoch", "spread", "batch"), [(0, 3, 2), (79, 3, 1), (45, 0.1, 2), (45, 30, 2)])
def test_loss_equals_the_direct_form_in_numpy(loss, epoch, spread, batch):
    sides, progress = maps(batch=batch, spread=spread), Progress(epoch, 80)
    value = value_of(loss, *sides, progress)
    assert value.dtype == torch.float64
    assert value.shape == ()
    assert value.item() == pytest.approx(reference(loss, *sides, progress), rel=1e-12, abs=1e-12)


@every_loss
def test_gradient_equals_finite_differences_and_leaves_the_teacher_alone(loss):
    student, teacher, labels = maps(classes=4, size=8, spread=1.0)
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value_of(loss, z, teacher.detach(), labels), student)
    value_of(loss, student, teacher, labels).backward()
    assert student.grad.abs().max() > 1e-6
    assert teacher.grad is None


@every_loss
@pytest.mark.parametrize("classes", [2, 19])
def test_loss_of_the_teacher_itself_is_zero(loss, classes):
    _, teacher, labels = maps(classes=classes)
    # DIST's 1e-8 in the correlation makes pixels of nearly equal probabilities unlike themselves
    near = 1e-12 if isinstance(loss, CWD) else 1e-4
    assert value_of(loss, teacher, teacher, labels).item() == pytest.approx(0, abs=near)
    assert value_of(loss, *maps(classes=classes)) > 0.01


@every_loss
def test_order_of_batch_and_classes_and_the_labels_do_not_matter(loss):
    student, teacher, labels = maps(batch=3)
    value = value_of(loss, student, teacher, labels)
    for dim in (0, 1):
        flipped = value_of(loss, student.flip(dim), teacher.flip(dim), labels)
        assert flipped.item() == pytest.approx(value.item(), rel=1e-12)
    assert torch.equal(value_of(loss, student, teacher, torch.ones_like(labels)), value)


@every_loss
def test_batch_is_the_mean_of_its_images_unless_it_needs_one_worker(loss):
    student, teacher, labels = maps(batch=3)
    singles = [value_of(loss, student[[i]], teacher[[i]], labels[[i]]) for i in range(3)]
    value = value_of(loss, student, teacher, labels)
    assert (value.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-10)) == isinstance(loss, CWD)
    assert isinstance(loss, SingleWorkerMethod) == (not isinstance(loss, CWD))


@every_loss
def test_loss_does_not_depend_on_how_many_pixels_there_are(loss):
    student, teacher, labels = of_one_size()
    tiled = value_of(loss, student.repeat(1, 1, 2, 3), teacher.repeat(1, 1, 2, 3), labels.repeat(1, 2, 3))
    assert tiled.item() == pytest.approx(value_of(loss, student, teacher, labels).item(), rel=1e-7)


def test_a_constant_of_each_class_changes_nothing_for_cwd():
    student, teacher, labels = maps()
    moved = value_of(CWD(), student + torch.randn(1, 19, 1, 1), teacher + torch.randn(1, 19, 1, 1), labels)
    assert moved.item() == pytest.approx(value_of(CWD(), student, teacher, labels).item(), rel=1e-10)


def test_maps_of_one_pixel_give_dist_of_classification():
    student, teacher, labels = of_one_size((8, 19, 1, 1))
    expected = value_of(DIST(2.0), student[..., 0, 0], teacher[..., 0, 0], labels[:, 0, 0])
    assert value_of(PixelDIST(2.0), student, teacher, labels).item() == pytest.approx(expected.item(), rel=1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [-1e4, 0.0, 1e4])
def test_extreme_and_equal_logits_give_finite_loss_and_gradient(loss, dtype, level):
    teacher = torch.full((2, 5, 4, 4), -1e4, dtype=dtype)
    teacher[:, 3] = 1e4
    student = torch.full((2, 5, 2, 2), level, dtype=dtype)
    value, gradient = value_and_gradient(loss, student, teacher, torch.zeros(2, 8, 8, dtype=torch.int64))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@every_loss
def test_loss_under_autocast_is_float32_and_exact_and_half_precision_teachers_are_near(loss):
    student, teacher, labels = maps()
    exact = value_of(loss, student.bfloat16().float(), teacher.half().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = value_of(loss, student.bfloat16(), teacher.half(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
    live = value_of(loss, student.bfloat16().float(), teacher.float(), labels)
    assert exact.item() == pytest.approx(live.item(), rel=1e-3)


@every_loss
def test_settings_are_checked_described_and_searched(loss):
    for field in fields(loss):
        if isinstance(getattr(loss, field.name), float):
            with pytest.raises(InputError, match=field.name):
                replace(loss, **{field.name: -1.0})
    with pytest.raises(InputError, match="resolution is 'half'"):
        replace(loss, resolution="half")
    with pytest.raises(InputError, match="temperature"):
        replace(loss, temperature=Staircase(4.0, 0.0, stages=2))
    assert set(describe(loss)) >= {"is", *(field.name for field in fields(loss))}
    searched = replace(loss, temperature=uniform(1.0, 8.0), resolution=choice("full", "student"))
    assert {corner.resolution for corner in resolve_corners(searched)} == {"full", "student"}
    assert set(evaluate_schedules(replace(loss, weight=MOVING), MIDDLE)) >= {"weight"}

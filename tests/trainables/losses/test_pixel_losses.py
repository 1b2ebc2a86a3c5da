"""One conformance suite for the losses on maps of logits, against numpy in float64, and what only one of them has.

A new loss joins by a line in LOSSES and its direct form in `reference_sides`.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from study.errors import InputError
from study.identity import describe
from study.space.domains import choice, resolve_corners, uniform
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.kd import KD, kd
from trainables.losses.ldt import LDT
from trainables.losses.pixel_kd import PixelKD
from trainables.losses.pixel_kd_std import PixelKDStd
from trainables.task import Outputs
from trainables.training.schedules import Progress, Staircase, evaluate_schedules, value_at

MOVING = Staircase(4.0, 1.0, stages=4)
LOSSES = {
    "KD": PixelKD(),
    "KD, warm": PixelKD(temperature=4.0, weight=0.3),
    "KD, moving": PixelKD(temperature=MOVING, weight=Staircase(1.0, 0.1, stages=2)),
    "KD, student's resolution": PixelKD(temperature=2.0, resolution="student"),
    "KD-STD": PixelKDStd(),
    "KD-STD, biased": PixelKDStd(temperature=2.0, unbiased=False),
    "KD-STD, student's resolution": PixelKDStd(temperature=MOVING, weight=9.0, resolution="student"),
    "LDT": LDT(),
    "LDT, warm": LDT(temperature=4.0, weight=2.0),
    "LDT, detached": LDT(temperature=MOVING, detach_statistics=True),
    "LDT, student's resolution": LDT(temperature=2.0, resolution="student"),
}
MIDDLE = Progress(epoch=45, epochs=80, within=0.25)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
EPSILON = 1e-7


def maps(
    batch: int = 2, classes: int = 19, size: int = 12, spread: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student at a quarter and a teacher at half the labels' size, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, classes, max(1, size // stride), max(1, size // stride)) for stride in (4, 2))
    student, teacher = (spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return student, teacher, torch.randint(classes, (batch, size, size), generator=generator)


def of_one_size(shape: tuple[int, ...] = (2, 19, 5, 5), spread: float = 3.0, seed: int = 0) -> list[Tensor]:
    """Logits of student and teacher at the labels' own resolution, where upsampling changes nothing, and labels."""
    generator = torch.Generator().manual_seed(seed)
    nets = [spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [*nets, torch.zeros(shape[0], *shape[2:], dtype=torch.int64)]


def value_of(loss, student, teacher, labels, progress=MIDDLE) -> Tensor:
    return loss(Outputs(student), Outputs(teacher), labels, progress)


def value_and_gradient(loss, student, teacher, labels, progress=MIDDLE) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = value_of(loss, student, teacher, labels, progress)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


# -- independent reference, pixel by pixel, in the direct form: probabilities first, then their logarithms


def reference_upsampled(z, size):
    """(K, h, w) → (K, *size): pixel centres of both grids at (i + 0.5)/n of the image, edges repeated."""
    for axis, n in ((1, size[0]), (2, size[1])):
        m = z.shape[axis]
        place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape(-1, *[1] * (2 - axis))
        z = z.take(low, axis) * (1 - share) + z.take(np.minimum(low + 1, m - 1), axis) * share
    return z


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def reference_sides(loss, z_s, z_t):
    """The student's and the teacher's logits of one pixel as the loss compares them."""
    if isinstance(loss, PixelKDStd):
        ddof = int(loss.unbiased)
        return [(z - z.mean()) / (z.std(ddof=ddof) + EPSILON) for z in (z_s, z_t)]
    if isinstance(loss, LDT):
        return (z_s - z_s.mean()) / (z_s.std(ddof=1) + EPSILON) * z_t.std(ddof=1), z_t
    return z_s, z_t


def reference(loss, student, teacher, labels, progress=MIDDLE):
    size = tuple(labels.shape[1:]) if loss.resolution == "full" else tuple(student.shape[2:])
    temperature, values = value_at(loss.temperature, progress), []
    for z_s, z_t in zip(student.double().numpy(), teacher.double().numpy(), strict=True):
        pixels = (reference_upsampled(z, size).reshape(len(z), -1).T for z in (z_s, z_t))
        for pair in zip(*pixels, strict=True):
            p_s, p_t = (softmax(z / temperature) for z in reference_sides(loss, *pair))
            values.append(kl(p_t, p_s))
    return value_at(loss.weight, progress) * temperature**2 * np.mean(values)


# -- upsampling


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 13)] * 2))
def test_upsampled_logits_equal_numpy_at_any_two_sizes(small, large):
    z = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.stack([reference_upsampled(one, large) for one in z.numpy()])
    torch.testing.assert_close(upsample_logits(z, large), torch.from_numpy(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_upsampled_logits_are_the_same_bits_in_any_layout_and_wide(layout):
    z = torch.randn(2, 19, 16, 16).half()
    large = upsample_logits(z.contiguous(memory_format=layout), (512, 512))
    assert large.dtype == torch.float32
    assert torch.equal(large, upsample_logits(z.float(), (512, 512)))
    expected = F.interpolate(z.float(), size=(512, 512), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, expected, rtol=1e-6, atol=1e-6)


def test_upsampling_to_their_own_size_changes_nothing():
    z = torch.randn(2, 19, 7, 5)
    assert torch.equal(upsample_logits(z, (7, 5)), z)


# -- every loss


@every_loss
@pytest.mark.parametrize(("epoch", "spread"), [(0, 3), (45, 3), (79, 3), (45, 0.1), (45, 30)])
def test_loss_equals_the_direct_form_in_numpy(loss, epoch, spread):
    sides, progress = maps(spread=spread), Progress(epoch, 80)
    value = value_of(loss, *sides, progress)
    assert value.dtype == torch.float64
    assert value.shape == ()
    assert value.item() == pytest.approx(reference(loss, *sides, progress), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES.values() if not getattr(loss, "detach_statistics", False)])
def test_gradient_equals_finite_differences(loss):
    student, teacher, labels = maps(batch=1, classes=5, size=8)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value_of(loss, z, teacher, labels), student)


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
        permuted, permuted_gradient = value_and_gradient(loss, *sides, labels)
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
def test_what_the_labels_say_does_not_matter(loss):
    student, teacher, labels = maps()
    assert torch.equal(
        value_of(loss, student, teacher, labels), value_of(loss, student, teacher, torch.zeros_like(labels))
    )


@every_loss
def test_one_image_of_one_pixel_equals_the_direct_form(loss):
    sides = of_one_size((1, 19, 1, 1))
    value, gradient = value_and_gradient(loss, *sides)
    assert value.item() == pytest.approx(reference(loss, *sides), rel=1e-12)
    assert gradient.abs().max() > 0


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("agreeing", [True, False])
def test_extreme_logits_give_finite_loss_and_gradient(loss, dtype, agreeing):
    teacher = torch.full((1, 19, 2, 2), -1e4, dtype=dtype)
    teacher[:, 3] = 1e4
    student = teacher if agreeing else -teacher
    value, gradient = value_and_gradient(loss, student, teacher, torch.zeros(1, 4, 4))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert agreeing or value > 0.1


@every_loss
@pytest.mark.parametrize("level", [0.0, 0.1, -7.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flat", ["student", "teacher", "both"])
def test_all_equal_logits_give_finite_loss_and_gradient(loss, level, dtype, flat):
    student, teacher, labels = (z.to(dtype) for z in of_one_size((2, 19, 3, 3)))
    student = torch.full_like(student, level) if flat != "teacher" else student
    teacher = torch.full_like(teacher, level) if flat != "student" else teacher
    value, gradient = value_and_gradient(loss, student, teacher, labels)
    assert torch.isfinite(gradient).all()
    expected = 0 if flat == "both" else reference(loss, student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-3 if dtype == torch.float32 else 1e-12, abs=1e-6)


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


@every_loss
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
def test_setting_out_of_range_is_refused(loss, setting, value):
    with pytest.raises(InputError, match=setting):
        replace(loss, **{setting: value})


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
    assert set(describe(loss)) >= {"is", *(field.name for field in fields(loss))}
    assert loss.needs_teacher
    moving = {name for name in ("temperature", "weight") if not isinstance(getattr(loss, name), float)}
    assert set(evaluate_schedules(loss, MIDDLE)) == moving


# -- KD


@pytest.mark.parametrize(
    ("loss", "classification"),
    [
        (PixelKD(2.0, 0.9), KD(2.0, 0.9)),
        (PixelKDStd(2.0, 9.0), KD(2.0, 9.0, standardise=True)),
    ],
)
def test_maps_of_one_pixel_give_the_loss_of_classification(loss, classification):
    student, teacher, labels = of_one_size((8, 19, 1, 1))
    expected = value_of(classification, student[..., 0, 0], teacher[..., 0, 0], labels[:, 0, 0])
    assert value_of(loss, student, teacher, labels).item() == pytest.approx(expected.item(), rel=1e-13)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(0, 4), min_size=2, max_size=2, unique=True))
def test_kd_grows_with_the_distance_from_the_teacher(seed, distances):
    # KL is convex in the student's logits and 0 at the teacher's: along any line from there it grows
    direction, teacher, labels = of_one_size(seed=seed)
    near, far = (value_of(PixelKD(), teacher + d * direction, teacher, labels) for d in sorted(distances))
    assert near <= far + 1e-12
    assert far > 0 or max(distances) < 1e-3


def test_student_resolution_compares_at_the_students_pixels():
    student, teacher, labels = maps()
    small = F.interpolate(teacher, size=student.shape[2:], mode="bilinear", align_corners=False)
    own = value_of(PixelKD(resolution="student"), student, teacher, labels)
    assert own.item() == pytest.approx(kd(student, small, 1.0).mean().item(), rel=1e-14)
    assert abs(own - value_of(PixelKD(), student, teacher, labels)) > 1e-3

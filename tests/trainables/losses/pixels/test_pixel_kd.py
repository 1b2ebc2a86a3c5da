"""Properties of KD on maps alone."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.losses.pixel_losses import (
    maps,
    of_one_size,
    value_of,
)
from trainables.losses.logits.kd import KD, kd
from trainables.losses.pixels.pixel_kd import PixelKD
from trainables.losses.pixels.pixel_kd_std import PixelKDStd


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

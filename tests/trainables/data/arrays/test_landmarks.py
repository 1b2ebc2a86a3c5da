"""Boxes of face components, computed from landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.small_sr_faces import (
    dataset,
    load,
)
from trainables.data.arrays.landmarks import compute_component_boxes


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return dataset(tmp_path / "VGGFace2")


coordinates = st.floats(0, 100)


def test_boxes_follow_from_landmarks(root):
    """By hand, at 52 pixels, where nothing is resized: points less (14, 8)."""
    boxes = load(root, size=52).boxes
    assert boxes.shape == (11, 4, 4)
    assert boxes.dtype == np.float32
    left, right, nose, mouth = np.array([18, 20.0]), np.array([34, 21.0]), np.array([26, 30.0]), np.array([26.5, 38.5])
    d = np.sqrt(16**2 + 1)
    raised = np.array([0, 0.15 * d])
    for box, middle, half in zip(
        boxes[0], (left - raised, right - raised, nose - raised, mouth), (0.45, 0.45, 0.35, 0.6), strict=True
    ):
        assert np.allclose(box, [*(middle - half * d), *(middle + half * d)], atol=1e-5)
    assert np.allclose(load(root, size=32).boxes, boxes * 32 / 52, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(points=st.lists(coordinates, min_size=10, max_size=10), size=st.sampled_from([32, 64, 256]))
def test_boxes_lie_in_the_image_and_are_never_empty(points, size):
    boxes = compute_component_boxes([points], [(0, 0, 100, 100)], size)[0]
    assert boxes.min() >= 0
    assert boxes.max() <= size
    assert ((boxes[:, 2:] - boxes[:, :2]) > size / 64).all()


def test_boxes_of_a_profile_are_not_smaller_than_published():
    points = [50, 40, 50.1, 40, 50, 50, 50, 60, 50, 60]
    boxes = compute_component_boxes([points], [(0, 0, 100, 100)], 512)[0]
    # 16 pixels to each side at 512: the least half side of DFDNet's boxes
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], 32, atol=1e-3)

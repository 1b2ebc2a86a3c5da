"""Batches of faces and their small copies: what is reduced, mirrored and read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from study.errors import InputError
from trainables.data.arrays.face_sr import SrFaces
from trainables.data.arrays.landmarks import compute_component_boxes
from trainables.tasks.face_sr.examples import SrExamples, enlarge_bicubic, flip_boxes, reduce_bicubic
from trainables.training.views import Flips

COUNT, SIZE = 6, 48


def examples(scale: int = 8, boxes: bool = True) -> SrExamples:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (COUNT, 12, 12, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE))).transpose(2, 0, 1) for image in coarse]
    corners = rng.uniform(0, SIZE / 2, (COUNT, 4, 2))
    drawn = np.concatenate([corners, corners + rng.uniform(1, SIZE / 2, (COUNT, 4, 2))], axis=2)
    return SrExamples(SrFaces(np.stack(large), drawn.astype(np.float32) if boxes else None), Flips(), scale, "cpu")


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_batch_has_large_images_small_ones_and_boxes():
    faces = examples()
    batch = faces.batch(numbers(4, 1), numbers(0, 0))
    assert batch.inputs.shape == (2, 3, 6, 6)
    assert batch.targets.image.shape == (2, 3, SIZE, SIZE)
    assert batch.inputs.dtype == batch.targets.image.dtype == batch.targets.boxes.dtype == torch.float32
    assert torch.equal((batch.targets.image * 255).round(), torch.from_numpy(faces.faces.images[[4, 1]]).float())
    assert np.array_equal(batch.targets.boxes, faces.faces.boxes[[4, 1]])
    assert (batch.samples.tolist(), batch.views.tolist()) == ([4, 1], [0, 0])
    assert len(faces) == COUNT


def test_data_without_landmarks_have_no_boxes():
    assert examples(boxes=False).batch(numbers(0, 1), numbers(0, 1)).targets.boxes is None


def pillow(image: np.ndarray, size: int) -> np.ndarray:
    """Each channel resized in floating point: with whole numbers Pillow rounds and clamps between rows and columns."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in image]
    return np.stack([np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in channels])


@pytest.mark.parametrize("scale", [2, 3, 4, 8, 12])
def test_small_images_are_what_pillow_makes_of_the_files(scale):
    batch = examples(scale).batch(torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64))
    levels = batch.inputs.numpy() * 255
    assert np.allclose(levels, levels.round(), atol=1e-4), "a small file has 8 bits"
    for small, large in zip(levels, examples().faces.images, strict=True):
        # half a level of rounding
        assert np.abs(small - pillow(large, SIZE // scale).clip(0, 255)).max() <= 0.501


def test_overshoot_is_clamped():
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    assert reduce_bicubic(edge, 4).aminmax() == (0, 1)
    enlarged = enlarge_bicubic(reduce_bicubic(edge, 4), 4)
    assert enlarged.shape == edge.shape
    assert enlarged.aminmax() == (0, 1)


def test_bicubic_is_that_of_pillow():
    small = examples().batch(torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64)).inputs
    for low, large in zip(small.numpy(), enlarge_bicubic(small, 8).numpy(), strict=True):
        assert np.allclose(large, pillow(low, SIZE).clip(0, 1), atol=1e-5)


def test_flipped_example_is_a_mirror_image_throughout():
    faces = examples()
    plain, flipped = (faces.batch(torch.arange(COUNT), torch.full((COUNT,), view)) for view in (0, 1))
    assert torch.equal(flipped.targets.image, plain.targets.image.flip(3))
    # of the flipped large image; a rounding apart from the flipped small one
    assert (flipped.inputs - plain.inputs.flip(3)).abs().max() <= 1.001 / 255
    assert torch.equal(flipped.inputs, reduce_bicubic(flipped.targets.image, 8))


def test_each_example_has_its_own_view():
    faces = examples()
    mixed = faces.batch(numbers(2, 3), numbers(1, 0))
    for position, (sample, view) in enumerate(((2, 1), (3, 0))):
        alone = faces.batch(numbers(sample), numbers(view))
        assert torch.equal(mixed.inputs[position], alone.inputs[0])
        assert torch.equal(mixed.targets.image[position], alone.targets.image[0])
        assert torch.equal(mixed.targets.boxes[position], alone.targets.boxes[0])


# -- boxes in the mirror

points = st.lists(st.floats(0, 64), min_size=10, max_size=10)


@settings(deadline=None)
@given(points=points)
def test_flipped_boxes_are_the_boxes_of_flipped_landmarks(points):
    """An oracle that knows of no boxes: mirror the face's points, whose left and right then change places."""
    x, y = 64 - np.array(points[0::2]), np.array(points[1::2])
    mirrored = np.stack([x, y], axis=1)[[1, 0, 2, 4, 3]].ravel().tolist()
    crop = (0, 0, 64, 64)
    expected = compute_component_boxes([mirrored], [crop], 64)
    boxes = torch.from_numpy(compute_component_boxes([points], [crop], 64))
    assert np.allclose(flip_boxes(boxes, numbers(1), 64), expected, atol=1e-4)
    assert torch.equal(flip_boxes(boxes, numbers(0), 64), boxes)


@settings(deadline=None)
@given(points=points)
def test_twice_flipped_boxes_are_where_they_were(points):
    boxes = torch.from_numpy(compute_component_boxes([points], [(0, 0, 64, 64)], 64))
    once = flip_boxes(boxes, numbers(1), 64)
    assert torch.allclose(flip_boxes(once, numbers(1), 64), boxes, atol=1e-4)
    assert (once[..., 2:] > once[..., :2]).all()
    assert once.min() >= 0
    assert once.max() <= 64


def test_flipped_box_shows_the_same_pixels_mirrored():
    faces = examples()
    whole = torch.tensor([[[3, 4, 9, 11], [20, 5, 30, 12], [10, 10, 20, 25], [8, 30, 28, 40]]], dtype=torch.float32)
    plain, flipped = (faces.batch(numbers(0), numbers(view)).targets.image[0] for view in (0, 1))
    mirrored = flip_boxes(whole, numbers(1), SIZE)[0].int().tolist()
    for component, other in enumerate((1, 0, 2, 3)):
        left, top, right, bottom = whole[0, other].int().tolist()
        x0, y0, x1, y1 = mirrored[component]
        assert torch.equal(flipped[:, y0:y1, x0:x1], plain[:, top:bottom, left:right].flip(2))


# -- bad input


def test_mapped_arrays_are_not_changed(tmp_path):
    faces = examples()
    np.save(tmp_path / "images.npy", faces.faces.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    again = SrExamples(SrFaces(mapped, faces.faces.boxes), Flips(), 8, "cpu")
    batch = again.batch(numbers(0), numbers(0))
    batch.targets.image.zero_()
    batch.targets.boxes.zero_()
    assert again.batch(numbers(0), numbers(0)).targets.image.any()
    assert again.batch(numbers(0), numbers(0)).targets.boxes.any()


@pytest.mark.parametrize("scale", [0, 1, 5, 7, 96])
def test_scale_that_does_not_divide_the_size_is_refused(scale):
    with pytest.raises(InputError, match=f"faces of 48 pixels at scale {scale}; allowed is a divisor of their size"):
        examples(scale)

"""Distances of images and feature maps, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.losses.common.image_distance import NORMS, pixel_error


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_equals_numpy(norm):
    image, target = torch.rand(2, 4, 3, 5, 6, dtype=torch.float64)
    a, b = image.numpy(), target.numpy()
    expected = {
        "mse": ((a - b) ** 2).mean(),
        "l1": np.abs(a - b).mean(),
        "l2norm": np.mean([np.linalg.norm((x - y).ravel()) for x, y in zip(a, b, strict=True)]),
    }[norm]
    assert pixel_error(norm, image, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_of_steps_is_the_mean_over_them(norm):
    steps, target = torch.rand(2, 4, 3, 5, 6), torch.rand(2, 3, 5, 6)
    each = [pixel_error(norm, steps[:, step], target) for step in range(4)]
    torch.testing.assert_close(pixel_error(norm, steps, target[:, None]), torch.stack(each).mean())


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_error_of_equal_images_is_zero_and_its_gradient_finite(norm):
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    value = pixel_error(norm, image, image.detach())
    value.backward()
    assert value == 0
    assert torch.isfinite(image.grad).all()


def test_half_precision_images_are_compared_in_single():
    image, target = torch.rand(2, 2, 3, 8, 8).bfloat16()
    assert pixel_error("mse", image, target).dtype == torch.float32

"""Transfer of components against a plain loop, and dictionaries that are filled or refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from study.errors import InputError
from tests.trainables.models.sr.nets import boxes
from trainables.models.sr.common import COMPONENTS
from trainables.models.sr.component_transfer import (
    ComponentTransfer,
    crop_boxes,
    fill_dictionary,
    match_atoms,
    paste_patches,
    scale_boxes,
)
from trainables.models.sr.small_sr import SmallSR


def bilinear(grid, y, x):
    """Between the pixels (C, H, W) around a point, whose nearest ones count beyond the edges."""
    (_, height, width), value = grid.shape, 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    for row in {math.floor(y), math.ceil(y)}:
        for column in {math.floor(x), math.ceil(x)}:
            value = value + (1 - abs(y - row)) * (1 - abs(x - column)) * grid[:, row, column]
    return value


def reference_cut(grid, box, size):
    """The mean of evenly spaced samples in each of size × size bins. Source: He et al. 2017, section 3."""
    x0, y0, x1, y1 = box
    down, across = (math.ceil((end - start) / size) for start, end in ((y0, y1), (x0, x1)))
    region = np.zeros((len(grid), size, size))
    for i in range(size):
        for j in range(size):
            for a in range(down):
                for b in range(across):
                    y = y0 + (i + (a + 0.5) / down) * (y1 - y0) / size - 0.5
                    x = x0 + (j + (b + 0.5) / across) * (x1 - x0) / size - 0.5
                    region[:, i, j] += bilinear(grid, y, x) / (down * across)
    return region


def reference_paste(patch, box, shape):
    x0, y0, x1, y1 = box
    size, pasted = patch.shape[-1], np.zeros(shape)
    for row in range(shape[1]):
        for column in range(shape[2]):
            y, x = (row + 0.5 - y0) / (y1 - y0), (column + 0.5 - x0) / (x1 - x0)
            if 0 <= y < 1 and 0 <= x < 1:
                pasted[:, row, column] = bilinear(patch, y * size - 0.5, x * size - 0.5)
    return pasted


def reference_match(region, atoms):
    """Every atom in the region's statistics, and of these the one with the largest inner product."""
    adapted = [
        np.stack(
            [
                (a - a.mean()) / np.sqrt(a.var() + 1e-5) * np.sqrt(r.var() + 1e-5) + r.mean()
                for a, r in zip(atom, region, strict=True)
            ]
        )
        for atom in atoms
    ]
    return max(adapted, key=lambda atom: (region * atom).sum())


def reference_transfer(net, features, boxes, atoms):
    """Image by image, component by component, in numpy but for the two convolutions of a confidence."""
    updated = features.numpy().copy()
    for image, original in enumerate(features.numpy()):
        for number in range(4):
            box = (boxes[image, number] / net.stride).tolist()
            region = reference_cut(original, box, atoms[number].shape[-1])
            atom = reference_match(region, atoms[number].numpy())
            confidence = net.confidences[number](torch.from_numpy(atom - region)[None])[0].numpy()
            updated[image] += reference_paste(confidence * atom, box, original.shape)
    return updated


@torch.no_grad()
def test_batched_transfer_equals_a_loop_over_images_and_components():
    torch.manual_seed(3)
    net = ComponentTransfer(5, stride=4).double().eval()
    # channels of different contrast: those with most of it decide which atom is chosen
    features = torch.randn(3, 5, 16, 16).double() * torch.tensor([0.1, 4.0, 1.0, 0.5, 0.2])[:, None, None]
    atoms = [torch.randn(6, 5, size, size).double() for size in (4, 4, 3, 6)]
    result = net(features, boxes(3), atoms)
    np.testing.assert_allclose(result.numpy(), reference_transfer(net, features, boxes(3), atoms), atol=1e-12)
    assert (result - features).abs().max() > 0.1


@torch.no_grad()
def test_transfer_under_autocast_is_that_in_float32():
    torch.manual_seed(3)
    net = ComponentTransfer(5, stride=4).eval()
    features, atoms = torch.randn(2, 5, 16, 16).bfloat16(), [torch.randn(6, 5, 4, 4) for _ in COMPONENTS]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = net(features, boxes(2), atoms)
    assert torch.equal(made, net(features.float(), boxes(2), atoms))


def test_each_region_finds_its_own_atom_whatever_its_brightness_and_contrast():
    torch.manual_seed(0)
    atoms = torch.randn(9, 4, 5, 5).double()
    regions = 3 * atoms[[7, 2]] - 5
    chosen = match_atoms(regions, atoms)
    # the chosen atom in the region's own statistics is that region
    torch.testing.assert_close(chosen, regions, rtol=1e-4, atol=1e-4)


def test_patches_in_boxes_of_whole_pixels_are_interpolated_there_and_nowhere_else():
    patches = torch.rand(2, 3, 5, 5).double()
    box = torch.tensor([[2, 1, 9, 11], [0, 0, 3, 4]]).double()
    made = paste_patches(patches, box, torch.zeros(2, 3, 12, 10))
    inside = F.interpolate(patches[:1], size=(10, 7), mode="bilinear")
    torch.testing.assert_close(made[:1, :, 1:11, 2:9], inside)
    made[:1, :, 1:11, 2:9] = 0
    assert made[0].abs().max() == 0
    assert made[1, :, 4:].abs().max() == made[1, :, :, 3:].abs().max() == 0


def test_box_without_extent_or_outside_the_image_harms_nothing():
    torch.manual_seed(0)
    net = ComponentTransfer(3, stride=2)
    features = torch.rand(1, 3, 8, 8, requires_grad=True)
    strange = torch.tensor([[[4.0, 4, 4, 4], [9, 9, 5, 5], [-20, -20, -4, -4], [90, 90, 99, 99]]])
    assert torch.equal(scale_boxes(strange[0, :1], 2), torch.tensor([[2.0, 2, 3, 3]]))
    updated = net(features, strange, [torch.rand(2, 3, 4, 4) for _ in COMPONENTS])
    (gradient,) = torch.autograd.grad(updated.sum(), features)
    assert torch.isfinite(updated).all()
    assert torch.isfinite(gradient).all()


def test_a_region_that_is_one_box_wide_is_what_was_there():
    features = torch.arange(36.0).view(1, 1, 6, 6).double()
    box = scale_boxes(torch.tensor([[4.0, 2, 10, 8]]).double(), 2)
    torch.testing.assert_close(crop_boxes(features, box, 3), features[:, :, 1:4, 2:5])


def test_dictionary_that_does_not_fit_is_refused():
    net = SmallSR(4, atoms=3).build(8)
    atoms = {part.name: torch.rand(part.shape) for part in net.dictionary.parts}
    with pytest.raises(InputError, match="nothing for nose"):
        fill_dictionary(net, {name: tensor for name, tensor in atoms.items() if name != "nose"})
    with pytest.raises(InputError, match=r"atoms \(2, 3, 16, 16\) for left_eye"):
        fill_dictionary(net, atoms | {"left_eye": torch.rand(2, 3, 16, 16)})
    with pytest.raises(InputError, match="finite"):
        fill_dictionary(net, atoms | {"mouth": atoms["mouth"] / 0})
    with pytest.raises(InputError, match="no dictionary"):
        fill_dictionary(SmallSR(4).build(8), atoms)

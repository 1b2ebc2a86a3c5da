from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision.transforms.v2.functional as TF
from torchvision import transforms

from study.errors import InputError
from trainables.training.views import CropFlip, GridCrops, normalise

CIFAR_VIEWS = CropFlip(padding=4, flip=True)


def images(count: int, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    # Without zeros, so that padding can be told from the image.
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def torchvision_views(image: torch.Tensor, padding: int, flip: bool) -> list[torch.Tensor]:
    padded = TF.pad(image, [padding])
    shifts = range(2 * padding + 1)
    crops = [TF.crop(padded, top, left, *image.shape[1:]) for top, left in itertools.product(shifts, shifts)]
    return crops + ([TF.horizontal_flip(crop) for crop in crops] if flip else [])


@pytest.mark.parametrize(
    ("padding", "flip", "shape"),
    [(4, True, (3, 32, 32)), (4, False, (3, 32, 32)), (1, True, (1, 8, 8)), (0, True, (1, 8, 8)), (2, True, (3, 5, 9))],
)
def test_views_are_exactly_torchvisions_pad_crop_and_flip(padding, flip, shape):
    views = CropFlip(padding, flip)
    (image,) = images(1, *shape)
    ours = views.apply(image.expand(views.count, *shape), torch.arange(views.count))
    assert ours.dtype == torch.uint8
    theirs = torchvision_views(image, padding, flip)
    assert len(theirs) == views.count
    assert {view.numpy().tobytes() for view in ours} == {view.contiguous().numpy().tobytes() for view in theirs}


def test_view_zero_is_the_untouched_image():
    batch = images(5)
    for views in (CIFAR_VIEWS, CropFlip(1, False), CropFlip(0, True)):
        assert torch.equal(views.apply(batch, torch.zeros(5, dtype=torch.int64)), batch)


def test_each_image_of_a_batch_gets_its_own_view():
    batch, views = images(40), torch.arange(40) * 4
    together = CIFAR_VIEWS.apply(batch, views)
    apart = torch.cat([CIFAR_VIEWS.apply(batch[[i]], views[[i]]) for i in range(40)])
    assert torch.equal(together, apart)
    assert together.is_contiguous()


@pytest.mark.parametrize(
    ("padding", "flip", "count"), [(4, True, 162), (4, False, 81), (1, False, 9), (0, True, 2), (0, False, 1)]
)
def test_count_is_crops_times_flips(padding, flip, count):
    assert CropFlip(padding, flip).count == count


def test_one_view_leaves_images_as_they_are():
    views = CropFlip(0, False)
    draws = views.draw(1, 2, torch.arange(10))
    assert draws.tolist() == [0] * 10
    batch = images(10)
    assert torch.equal(views.apply(batch, draws), batch)


def test_negative_padding_is_refused():
    with pytest.raises(InputError, match="-1"):
        CropFlip(-1, True)


# -- draws


def test_draw_depends_on_seed_epoch_and_sample_alone():
    samples = torch.arange(1000)
    draws = CIFAR_VIEWS.draw(7, 3, samples)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(99)
    assert torch.equal(CIFAR_VIEWS.draw(7, 3, samples[order]), draws[order])
    assert torch.equal(CIFAR_VIEWS.draw(7, 3, samples[17:18]), draws[17:18])
    assert draws.dtype == torch.int64


def test_draw_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    CIFAR_VIEWS.draw(7, 3, torch.arange(10))
    assert torch.equal(before, torch.get_rng_state())


def splitmix(x: int) -> int:
    """The finaliser of SplitMix64 in Python's unbounded integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 79), (2**63 - 1, 5), (-3, 2)])
def test_draw_equals_splitmix_in_unbounded_integers(seed, epoch):
    # splitmix(golden gamma) is SplitMix64's first output from state 0, published as e220a8397b1dcdaf.
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    stream = splitmix((splitmix(seed % 2**64) + epoch) % 2**64)
    expected = [splitmix((stream + i * 0x9E3779B97F4A7C15) % 2**64) % 2**63 % 162 for i in range(50)]
    assert CIFAR_VIEWS.draw(seed, epoch, torch.arange(50)).tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, 12345678901])
@pytest.mark.parametrize("epoch", [0, 1, 79])
def test_draws_are_uniform_over_the_views(seed, epoch):
    counts = np.bincount(CIFAR_VIEWS.draw(seed, epoch, torch.arange(50_000)), minlength=162)
    assert len(counts) == 162
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((0, 0, 0), (0, 1, 0), id="epochs"),
        pytest.param((0, 0, 0), (1, 0, 0), id="seeds"),
        pytest.param((0, 1, 0), (1, 0, 0), id="seed and epoch exchanged"),
        pytest.param((0, 0, 0), (0, 0, 1), id="neighbouring samples"),
    ],
)
def test_draws_are_independent(one, other):
    draws = [CropFlip(1, True).draw(seed, epoch, torch.arange(50_000) + shift) for seed, epoch, shift in (one, other)]
    table = np.zeros((18, 18))
    np.add.at(table, tuple(draw.numpy() for draw in draws), 1)
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_80_epochs_draw_63_of_162_views_of_an_image():
    # 162·(1 − (161/162)^80) = 63.3 are expected; a draw that repeats itself between epochs gives fewer.
    draws = torch.stack([CIFAR_VIEWS.draw(5, epoch, torch.arange(2000)) for epoch in range(80)])
    distinct = np.mean([len(row.unique()) for row in draws.T])
    assert distinct == pytest.approx(162 * (1 - (161 / 162) ** 80), abs=0.3)


# -- normalisation


def test_normalise_equals_torchvision():
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    batch = images(8)
    ours = normalise(batch, torch.tensor(mean), torch.tensor(std))
    to_tensor, standardise = transforms.ToTensor(), transforms.Normalize(mean, std)
    theirs = torch.stack([standardise(to_tensor(image.permute(1, 2, 0).numpy())) for image in batch])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_normalise_leaves_its_input_alone():
    batch = images(1)
    kept = batch.clone()
    normalise(batch, torch.tensor([0.5] * 3), torch.tensor([0.25] * 3))
    assert torch.equal(batch, kept)


@pytest.mark.gpu
def test_views_on_the_device_equal_those_on_the_processor():
    batch, samples = images(162), torch.arange(162)
    on_device = CIFAR_VIEWS.draw(3, 1, samples.cuda())
    assert torch.equal(on_device.cpu(), CIFAR_VIEWS.draw(3, 1, samples))
    assert torch.equal(CIFAR_VIEWS.apply(batch.cuda(), samples.cuda()).cpu(), CIFAR_VIEWS.apply(batch, samples))


# -- crops on a grid


def picture(height: int, width: int) -> torch.Tensor:
    return images(1, 3, height, width)[0]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (50, 33), (32, 32), (32, 100)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (4, 4)])
def test_grid_crops_are_torchvisions_crops_and_flips_from_edge_to_edge(height, width, rows, columns):
    views, image = GridCrops(32, rows, columns), picture(height, width)
    corners = [views.locate_crop(view, height, width) for view in range(1, views.count)]
    for view, (top, left) in enumerate(corners, start=1):
        assert top % 2 == left % 2 == 0
        expected = TF.crop(image, top, left, 32, 32)
        mirrored = view > rows * columns
        assert torch.equal(views.apply(image, view), TF.horizontal_flip(expected) if mirrored else expected)
    if rows > 1:
        assert (min(corners)[0], max(corners)[0]) == (0, (height - 32) // 2 * 2)
    assert corners[: rows * columns] == corners[rows * columns :]


def test_grid_crops_of_a_map_at_half_the_size_show_the_same_place():
    views, image = GridCrops(32, 3, 3), picture(76, 90)
    half = image[:, ::2, ::2]
    for view in range(10):
        assert torch.equal(views.apply(half, view, stride=2), views.apply(image, view)[:, ::2, ::2])
    for view in range(1, 10):
        assert torch.equal(views.apply(half, view + 9, stride=2), views.apply(half, view, stride=2).flip(2))


def test_grid_crops_count_the_whole_image_and_never_draw_it():
    views = GridCrops(32, 2, 3)
    assert views.count == 13
    assert GridCrops(32, 2, 3, flip=False).count == 7
    image = picture(48, 64)
    assert views.apply(image, 0) is image
    drawn = views.draw(3, 1, torch.arange(10_000))
    assert drawn.unique().tolist() == list(range(1, 13))
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=13)[1:]).pvalue > 1e-3
    assert torch.equal(views.draw(3, 1, torch.tensor([77])), drawn[77:78])


@pytest.mark.parametrize("make", [lambda: GridCrops(0, 1, 1), lambda: GridCrops(33, 1, 1), lambda: GridCrops(32, 0, 1)])
def test_impossible_grid_crops_are_refused(make):
    with pytest.raises(InputError, match="allowed is"):
        make()

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import v2

from study.errors import InputError
from study.identity import describe
from tests.trainables import small
from trainables.losses.logits.kd import KD
from trainables.training.random_views import ResizedCrops, SeededViews

COLOURS = ResizedCrops(64, brightness=0.4, contrast=0.4, saturation=0.4)


def augment(image: torch.Tensor) -> torch.Tensor:
    return v2.RandAugment()(v2.RandomHorizontalFlip()(image))


def fail(image: torch.Tensor) -> torch.Tensor:
    raise ValueError("no such colour")


def shrink(image: torch.Tensor) -> torch.Tensor:
    return image[:, ::2]


def images(count: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("views", [COLOURS, ResizedCrops(64), SeededViews(augment, 64)])
def test_a_view_is_a_function_of_image_and_number_alone(views):
    batch, numbers = images(40), torch.arange(40) % views.count
    together = views.apply(batch, numbers)
    apart = torch.cat([views.apply(batch[[i]], numbers[[i]]) for i in reversed(range(40))]).flip(0)
    assert together.dtype == torch.uint8
    assert torch.equal(together, apart)
    assert torch.equal(together[0], batch[0])  # view 0
    assert not torch.equal(together[1:], batch[1:])


@pytest.mark.parametrize("views", [ResizedCrops(7), SeededViews(augment, 7)])
def test_all_views_but_the_untouched_image_are_drawn(views):
    drawn = views.draw(3, 1, torch.arange(7000))
    counts = np.bincount(drawn.numpy(), minlength=views.count)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:]).pvalue > 1e-4


def crop_boxes(views: ResizedCrops, side: int = 64) -> dict[str, np.ndarray]:
    """Return boxes as they show in crops of a picture whose pixels are their own coordinates."""
    ramp = torch.arange(side).float() + 0.5
    picture = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)])
    numbers = torch.arange(1, views.count)
    crops = views._crop(picture.expand(len(numbers), -1, -1, -1).contiguous(), numbers).numpy()
    middle = slice(side // 4, 3 * side // 4)  # at the edges of the picture, pixels repeat
    x, y = crops[:, 0, side // 2, middle], crops[:, 1, middle, side // 2]
    wide, high = (np.diff(line, axis=1).mean(axis=1) for line in (x, y))
    return {"wide": np.abs(wide), "high": high, "mirrored": wide < 0, "x": x.mean(axis=1), "y": y.mean(axis=1)}


def test_crops_cover_the_given_shares_and_ratios_evenly():
    views = ResizedCrops(3000, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    box = crop_boxes(views)
    area, ratio = box["wide"] * box["high"], np.log(box["wide"] / box["high"])
    assert scipy.stats.kstest(area, scipy.stats.uniform(0.2, 0.3).cdf).pvalue > 1e-4
    assert scipy.stats.kstest(ratio, scipy.stats.uniform(-np.log(2), 2 * np.log(2)).cdf).pvalue > 1e-4
    assert abs(box["mirrored"].mean() - 0.5) < 0.05
    for centre, extent in (("x", "wide"), ("y", "high")):
        place = (box[centre] / 64 - box[extent] / 2) / (1 - box[extent])  # 0 at one edge, 1 at the other
        assert scipy.stats.kstest(place, "uniform").pvalue > 1e-4


def test_a_crop_of_the_whole_image_is_the_image_or_its_mirror():
    batch, views = images(30), ResizedCrops(30, scale=(1, 1), ratio=(1, 1))
    result = views.apply(batch, torch.arange(1, 31))
    mirrored = crop_boxes(views)["mirrored"]
    assert 0 < mirrored.sum() < 30
    for image, view, is_mirrored in zip(batch, result, mirrored, strict=True):
        assert torch.equal(view, image.flip(-1) if is_mirrored else image)


def test_colours_change_as_torchvision_changes_them():
    (picture,) = images(1).float()
    batch = picture.expand(200, -1, -1, -1)
    for name, adjust in (
        ("brightness", TF.adjust_brightness),
        ("contrast", TF.adjust_contrast),
        ("saturation", TF.adjust_saturation),
    ):
        views = ResizedCrops(200, **{name: 0.5})
        changed = views._change_colours(batch, torch.arange(1, 201))
        # the factor that torchvision would need for the same picture, by the pixel furthest from its end
        factors = np.linspace(0.5, 1.5, 2001)
        found = []
        for one in changed[::20]:
            errors = [float((adjust(picture / 255, factor) * 255 - one).abs().max()) for factor in factors[::20]]
            assert min(errors) < 2.0
            found.append(factors[::20][int(np.argmin(errors))])
        assert np.ptp(found) > 0.3


def test_grey_images_have_no_saturation():
    views = ResizedCrops(5, scale=(1, 1), ratio=(1, 1), flip=False, saturation=1.0)
    batch = images(5, channels=1)
    assert torch.equal(views.apply(batch, torch.arange(1, 6)), batch)


def test_transforms_leave_the_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SeededViews(augment, 4).apply(images(4), torch.arange(4))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("views", [dataclasses.replace(COLOURS, number=3), SeededViews(augment, 3)])
def test_stored_outputs_train_as_a_live_teacher_does(views, tmp_path):
    losses = []
    for stored in (True, False):
        task = dataclasses.replace(small.TASK, views=views, teacher_store=stored)
        folder = tmp_path / str(stored)
        small.prepared(task, folder)
        rows = list(task.train(small.job(task, folder, folder / "c", epochs=3, loss=KD(temperature=2.0))))
        losses.append([row["metrics"]["train/loss"] for row in rows])
    # outputs are stored in half precision
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_transforms_that_fail_are_refused_by_the_check():
    def check(transform):
        dataclasses.replace(small.TASK, views=SeededViews(transform, 3)).check_data((), ())

    with pytest.raises(InputError, match=r"fail raises ValueError on an image \(1, 8, 8\): no such colour.*line"):
        check(fail)
    with pytest.raises(InputError, match=r"shrink returns torch.uint8 \(1, 4, 8\); allowed is an image like the given"):
        check(shrink)


def test_transforms_of_a_space_file_identify_the_study():
    assert describe(SeededViews(augment, 3)) != describe(SeededViews(shrink, 3))
    with pytest.raises(InputError, match=r"transform is RandAugment\(.*write a function at the top level"):
        SeededViews(v2.RandAugment(), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number": 0}, "number is 0"),
        ({"scale": (0.5, 2.0)}, r"scale is \(0.5, 2.0\)"),
        ({"ratio": (2.0, 1.0)}, r"ratio is \(2.0, 1.0\)"),
        ({"contrast": 1.5}, "contrast is 1.5"),
        ({"number": True}, "number is True"),
        ({"ratio": (0.5, math.inf)}, r"ratio is \(0.5, inf\); allowed is .* both finite"),
        ({"ratio": (math.nan, 1.0)}, r"ratio is \(nan, 1.0\)"),
        ({"scale": (0.1, math.nan)}, r"scale is \(0.1, nan\)"),
        ({"scale": 0.5}, "scale is 0.5; allowed is"),
        ({"scale": (0.5,)}, r"scale is \(0.5,\)"),
        ({"scale": "ab"}, "scale is 'ab'"),
        ({"ratio": ("a", "b")}, r"ratio is \('a', 'b'\)"),
        ({"ratio": None}, "ratio is None"),
        ({"saturation": math.nan}, "saturation is nan"),
        ({"brightness": "much"}, "brightness is 'much'"),
        ({"brightness": None}, "brightness is None"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ResizedCrops(**({"number": 4} | settings))

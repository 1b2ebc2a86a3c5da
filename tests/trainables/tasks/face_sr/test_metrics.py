"""PSNR, SSIM and LPIPS of restored images, against numpy and torchmetrics' own functions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS

from study.errors import InputError
from trainables.data.synthetic.face_drawing import draw_face
from trainables.data.synthetic.sr_faces import LOOKS
from trainables.task import Batch, Outputs
from trainables.tasks.face_sr import metrics as sr_scores
from trainables.tasks.face_sr.examples import SrTargets, enlarge_bicubic, reduce_bicubic
from trainables.tasks.face_sr.metrics import (
    BACKBONES,
    ScoreOptions,
    SrScores,
    compute_luma,
    measure_ssim,
    missing_lpips_weights,
)


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch) -> Path:
    """Where torchvision would look for weights: an empty folder."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    sr_scores._load_lpips.cache_clear()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def images(count: int = 7, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets in steps of 1/255, and predictions with errors of very different sizes, some beyond [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 256, (count, 3, size, size), generator=generator) / 255
    errors = torch.randn(target.shape, generator=generator) * torch.logspace(-2.5, -0.5, count)[:, None, None, None]
    return target + errors, target


def scored(meters: SrScores, prediction: torch.Tensor, target: torch.Tensor, batch: int = 3) -> dict[str, float]:
    for said, true in zip(prediction.split(batch), target.split(batch), strict=True):
        none = torch.zeros(len(said), dtype=torch.int64)
        meters.update(Outputs(said), Batch(true, SrTargets(true, None), none, none))
    return meters.compute()


def by_hand(prediction: torch.Tensor, target: torch.Tensor) -> float:
    clamped, true = prediction.double().clamp(0, 1).numpy(), target.double().numpy()
    return float(np.mean([-10 * math.log10(np.mean((x - y) ** 2)) for x, y in zip(clamped, true, strict=True)]))


def y_by_hand(image: torch.Tensor) -> np.ndarray:
    """ITU-R BT.601 for 8 bits: Y = 16 + 65.481 R + 128.553 G + 24.966 B, here of 255."""
    red, green, blue = image.double().clamp(0, 1).numpy().transpose(1, 0, 2, 3)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255


def ssim_by_hand(image: np.ndarray, target: np.ndarray) -> float:
    """Wang et al. 2004, section III.C, of one image (C, H, W): windows of 11 × 11 pixels that lie within it."""
    steps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(steps, steps) / steps.sum() ** 2
    channels = []
    for x, y in zip(image.astype(np.float64), target.astype(np.float64), strict=True):
        means = [convolve2d(values, window, mode="valid") for values in (x, y, x * x, y * y, x * y)]
        mx, my = means[:2]
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        structure = (2 * (means[4] - mx * my) + 0.03**2) / (means[2] - mx**2 + means[3] - my**2 + 0.03**2)
        channels.append((luminance * structure).mean())
    return float(np.mean(channels))


def test_psnr_is_the_mean_over_images():
    prediction, target = images()
    assert scored(SrScores("cpu"), prediction, target)["psnr"] == pytest.approx(by_hand(prediction, target), abs=1e-4)
    pooled = -10 * math.log10(float((prediction.clamp(0, 1) - target).square().mean()))
    assert abs(by_hand(prediction, target) - pooled) > 3, "so that one error over all images would show"


def test_psnr_of_a_known_error():
    # a difference of 0.1 everywhere: 10·log10(1 / 0.01)
    target = torch.full((2, 3, 16, 16), 0.5)
    assert scored(SrScores("cpu"), target + 0.1, target)["psnr"] == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_scores_do_not_depend_on_batches_or_overshoot(channel):
    prediction, target = images()
    expected = scored(SrScores("cpu", ScoreOptions(channel)), prediction, target, 7)
    assert scored(SrScores("cpu", ScoreOptions(channel)), prediction.clamp(0, 1), target, 2) == pytest.approx(
        expected, abs=1e-5
    )
    assert scored(SrScores("cpu", ScoreOptions(channel)), prediction, target, 1) == pytest.approx(expected, abs=1e-5)


def test_ssim_is_the_mean_over_images_and_over_windows_within_them():
    prediction, target = images()
    clamped = prediction.clamp(0, 1)
    expected = [ssim_by_hand(said.numpy(), true.numpy()) for said, true in zip(clamped, target, strict=True)]
    assert scored(SrScores("cpu"), prediction, target)["ssim"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    prediction, target = images(size=40)
    clamped = prediction.clamp(0, 1)
    expected = [
        metrics.structural_similarity(
            said.double().numpy(),
            true.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=0,
        )
        for said, true in zip(clamped, target, strict=True)
    ]
    np.testing.assert_allclose(measure_ssim(clamped, target).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("size", "added"), [(64, 0.037), pytest.param(256, 0.008, marks=pytest.mark.slow)])
def test_ssim_over_reflected_borders_is_another_number(size, added):
    """On drawn faces, enlarged again, borders add as much as the effects that papers report."""
    drawn = [draw_face(np.random.default_rng(seed), size, LOOKS).image.transpose(2, 0, 1) for seed in range(3)]
    faces = torch.from_numpy(np.stack(drawn)).float() / 255
    restored = enlarge_bicubic(reduce_bicubic(faces, 8), 8)
    reflected = structural_similarity_index_measure(restored.double(), faces.double(), data_range=1.0)
    assert float(reflected) - float(measure_ssim(restored, faces).mean()) == pytest.approx(added, abs=0.003)


def test_ssim_of_an_image_smaller_than_its_window_is_refused():
    with pytest.raises(InputError, match="SSIM of 10 × 12 pixels; allowed are 11 or more a side"):
        measure_ssim(torch.zeros(1, 3, 12, 10), torch.zeros(1, 3, 12, 10))


def test_ssim_of_constant_images():
    # no variance: (2·μx·μy + c1) / (μx² + μy² + c1) with c1 = 0.01², Wang et al. 2004, equation 13
    target = torch.full((1, 3, 16, 16), 0.5)
    expected = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    assert scored(SrScores("cpu"), target + 0.1, target)["ssim"] == pytest.approx(expected, abs=1e-6)


def test_ssim_of_small_variances_keeps_its_digits():
    """With 24 bits of precision it is 5e-6 off, and with the 11 of a GPU's TF32 far more."""
    noise = torch.randn(2, 1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) / 100
    prediction, target = (0.9 + noise).clamp(0, 1)
    expected = ssim_by_hand(prediction[0].numpy(), target[0].numpy())
    assert scored(SrScores("cpu"), prediction, target)["ssim"] == pytest.approx(expected, abs=1e-7)


def test_luma_is_that_of_bt601():
    prediction, target = images()
    assert np.allclose(compute_luma(target)[:, 0].numpy(), y_by_hand(target), atol=1e-6)
    found = scored(SrScores("cpu", ScoreOptions("y")), prediction, target)
    errors = ((y_by_hand(prediction) - y_by_hand(target)) ** 2).mean(axis=(1, 2))
    assert found["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-4)
    pairs = zip(y_by_hand(prediction), y_by_hand(target), strict=True)
    expected = np.mean([ssim_by_hand(said[None], true[None]) for said, true in pairs])
    assert found["ssim"] == pytest.approx(float(expected), abs=1e-6)


def test_published_options_of_rcan_and_srfbn_are_rounded_luma_without_borders():
    prediction, target = images(size=32)
    found = scored(SrScores("cpu", ScoreOptions("y", rounded=True, border=8)), prediction, target)
    pixels = prediction.double().clamp(0, 1).mul(255).round().div(255)
    inner = slice(8, -8)
    ours, true = (y_by_hand(image)[:, inner, inner] for image in (pixels, target))
    assert found["psnr"] == pytest.approx(np.mean(-10 * np.log10(((ours - true) ** 2).mean(axis=(1, 2)))), abs=1e-4)
    ssim = np.mean([ssim_by_hand(said[None], truth[None]) for said, truth in zip(ours, true, strict=True)])
    assert found["ssim"] == pytest.approx(ssim, abs=1e-5)
    plain = scored(SrScores("cpu"), prediction, target)
    assert abs(found["psnr"] - plain["psnr"]) > 0.1, "so that a forgotten option would show"


def test_luma_adds_decibels_for_equal_errors_of_all_colours():
    # 219 of 255 steps: 20·log10(255/219)
    target = torch.full((1, 3, 16, 16), 0.5)
    found = {channel: scored(SrScores("cpu", ScoreOptions(channel)), target + 0.1, target) for channel in ("rgb", "y")}
    assert found["y"]["psnr"] - found["rgb"]["psnr"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ScoreOptions(), "RGB, not rounded, whole images"),
        (ScoreOptions("y", rounded=True, border=8), "luma, rounded to 8 bits, 8 pixels cut off"),
    ],
)
def test_options_are_named(options, text):
    assert str(options) == text


@pytest.mark.parametrize(
    ("colour", "level"), [((0, 0, 0), 16), ((1, 1, 1), 235), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553)]
)
def test_luma_of_known_colours(colour, level):
    # black and white are the ends of BT.601's range, 16 and 235
    image = torch.tensor(colour, dtype=torch.float32)[None, :, None, None]
    assert float(compute_luma(image)) * 255 == pytest.approx(level, abs=1e-3)


def test_outputs_of_half_precision_are_scored_in_full():
    prediction, target = images()
    expected = by_hand(prediction.half().float(), target)
    assert scored(SrScores("cpu"), prediction.half(), target)["psnr"] == pytest.approx(expected, abs=1e-4)


def test_diverged_net_has_no_finite_score():
    prediction, target = images(2)
    prediction[1, 0, 3, 3] = math.nan
    assert math.isnan(scored(SrScores("cpu"), prediction, target)["psnr"])


# -- LPIPS


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_without_its_weights_is_absent_and_the_file_is_named(net, weights):
    prediction, target = images(2)
    assert scored(SrScores("cpu", lpips=net), prediction, target).keys() == {"psnr", "ssim"}
    file, source = BACKBONES[net]
    assert (
        missing_lpips_weights(net)
        == f"no LPIPS: weights absent; put the file {file} of torchvision's {source} into {weights}"
    )


def test_lpips_is_absent_where_the_task_has_none(weights):
    (weights / BACKBONES["alex"][0]).write_bytes(b"never looked at")
    prediction, target = images(2)
    assert scored(SrScores("cpu", lpips=None), prediction, target).keys() == {"psnr", "ssim"}


@pytest.mark.parametrize("net", BACKBONES)
def test_damaged_weights_of_lpips_are_refused_and_not_downloaded(net, weights, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    (weights / BACKBONES[net][0]).write_bytes(b"half a file")
    assert missing_lpips_weights(net) == ""
    with pytest.raises(InputError, match=r"has SHA-256 .*, which is not the one in its name: the file is damaged"):
        SrScores("cpu", lpips=net)


def test_files_are_those_that_torchvision_would_fetch():
    import torchvision.models as models

    for file, source in BACKBONES.values():
        enum, _, weights = source.partition(".")
        assert getattr(models, enum)[weights].url.rsplit("/", 1)[1] == file


@pytest.fixture
def random_backbone(monkeypatch) -> _LPIPS:
    """A stand-in for AlexNet's weights, which are not at hand: for the arithmetic of means, not for numbers."""
    torch.manual_seed(0)
    random = _LPIPS(net="alex", pnet_rand=True)
    monkeypatch.setattr("torchmetrics.image.lpip._NoTrainLpips", lambda net: random)
    monkeypatch.setattr(sr_scores, "missing_lpips_weights", lambda net: "")
    monkeypatch.setattr(sr_scores, "load_imagenet_weights", lambda *names: {})
    return random


def test_lpips_is_the_mean_over_images(random_backbone):
    prediction, target = images(5, 64)
    with torch.no_grad():
        expected = random_backbone(prediction.clamp(0, 1), target, normalize=True).mean()
    for channel in ("rgb", "y"):
        found = scored(SrScores("cpu", ScoreOptions(channel)), prediction, target)
        assert found["lpips"] == pytest.approx(float(expected), rel=1e-4), "of uneven batches, 3 and 2"
    assert scored(SrScores("cpu"), target, target)["lpips"] == pytest.approx(0, abs=1e-6)


def test_lpips_of_two_splits_at_once_does_not_mix(random_backbone):
    prediction, target = images(4, 64)
    first, second = SrScores("cpu"), SrScores("cpu")
    scored(first, prediction[:2], target[:2])
    scored(second, prediction[2:], target[2:])
    assert first.compute()["lpips"] == scored(SrScores("cpu"), prediction[:2], target[:2])["lpips"]
    assert first.compute()["lpips"] != second.compute()["lpips"]


def test_lpips_of_a_diverged_net_is_not_a_number(random_backbone):
    prediction, target = images(2, 64)
    prediction[1, 0, 3, 3] = math.nan
    assert math.isnan(scored(SrScores("cpu"), prediction, target)["lpips"])

"""Scores of restored images: PSNR, SSIM, and LPIPS where the weights it needs are found.

Nothing is downloaded, and no score comes from weights other than ImageNet's: without them LPIPS is absent, and
`missing_lpips_weights` names the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from study.errors import InputError
from study.task import Metric
from trainables.models.backbones.pretrained import load_imagenet_weights
from trainables.task import Batch, Outputs

SCORES = (
    Metric("psnr", "max", "dB", 3, label="PSNR"),
    Metric("ssim", "max", label="SSIM"),
    Metric("lpips", "min", label="LPIPS"),
)

Channel = Literal["rgb", "y"]
LpipsNet = Literal["alex", "vgg", "squeeze"]

BACKBONES = {
    "alex": ("alexnet-owt-7be5be79.pth", "AlexNet_Weights.IMAGENET1K_V1"),
    "vgg": ("vgg16-397923af.pth", "VGG16_Weights.IMAGENET1K_V1"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "SqueezeNet1_1_Weights.IMAGENET1K_V1"),
}
"""The file of each net that LPIPS compares with, and torchvision's name for its weights."""

LUMA = (65.481, 128.553, 24.966)
BLACK = 16.0
"""Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1]. Source: ITU-R BT.601, quantised to 16…235."""


SSIM_WINDOW = 11
"""Side of SSIM's window in pixels. Source: Wang et al. 2004, section III.C."""


@dataclass(frozen=True)
class ScoreOptions:
    """Options of PSNR and SSIM, in which papers differ: luma alone adds 1.3 dB for equal errors of all colours.

    RCAN and SRFBN report ScoreOptions("y", rounded=True, border=scale).
    """

    channel: Channel = "rgb"
    """Red, green and blue ("rgb"), or the luma alone ("y")."""
    rounded: bool = False
    """Whether images are rounded to steps of 1/255, as in files of 8 bits. Concerns LPIPS, too."""
    border: int = 0
    """Pixels that are cut off at each side."""

    def select(self, images: Tensor) -> Tensor:
        """Return what is compared of images: (B, 3, H, W) → (B, C, H − 2·border, W − 2·border), C 3 or 1."""
        inner = images[..., self.border : images.shape[-2] - self.border, self.border : images.shape[-1] - self.border]
        return compute_luma(inner) if self.channel == "y" else inner

    def __str__(self) -> str:
        """Name all options: "RGB, not rounded, whole images"."""
        colours = {"rgb": "RGB", "y": "luma"}[self.channel]
        rounding = "rounded to 8 bits" if self.rounded else "not rounded"
        return f"{colours}, {rounding}, {f'{self.border} pixels cut off' if self.border else 'whole images'}"


DEFAULT_OPTIONS = ScoreOptions()


class SrScores:
    """Means over all images of a split, of outputs that are first clamped to [0, 1].

    `psnr` is 10·log10(1 / mean squared error) of each image, in dB; `ssim` that of Wang et al. 2004 (`measure_ssim`);
    `lpips` that of Zhang et al. 2018, lower is better, always of all three colours and of whole images. `options` are
    those of the first two. With `psnr_only` the others are not measured, nor is LPIPS without the file of its weights.
    Raises InputError if the file of LPIPS's weights is damaged.
    """

    def __init__(
        self,
        device: str,
        options: ScoreOptions = DEFAULT_OPTIONS,
        lpips: LpipsNet | None = "alex",
        psnr_only: bool = False,
    ):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics import SumMetric

        self._options, self._psnr_only = options, psnr_only
        self._lpips = None if psnr_only or lpips is None or missing_lpips_weights(lpips) else _load_lpips(lpips, device)
        # not MeanMetric: it either drops NaN, a diverged net's score, or forgets the weights. Not torchmetrics' PSNR of
        # each image: it collects lists, which workers cannot combine if one of them has no image.
        self._psnr, self._ssim, self._distance, self._images = (
            SumMetric(nan_strategy="disable").to(device) for _ in range(4)
        )

    def update(self, outputs: Outputs, batch: Batch) -> None:
        image = outputs.prediction.detach().float().clamp(0, 1)
        target = batch.targets.image
        self._images.update(image.new_full((), len(image)))  # a number would wait for the device
        if self._options.rounded:
            image = image.mul(255).round().div(255)
        if self._lpips is not None:
            self._distance.update(self._lpips(image, target) * len(image))
        image, target = self._options.select(image), self._options.select(target)
        self._psnr.update((-10 * (image - target).square().mean(dim=(1, 2, 3)).log10()).sum())
        if not self._psnr_only:
            self._ssim.update(measure_ssim(image, target).sum())

    def compute(self) -> dict[str, float]:
        images = self._images.compute()
        scores = {"psnr": float(self._psnr.compute() / images)}
        if not self._psnr_only:
            scores["ssim"] = float(self._ssim.compute() / images)
        if self._lpips is not None:
            scores["lpips"] = float(self._distance.compute() / images)
        return scores


def measure_ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Return the SSIM of each image in [0, 1]: (B, C, H, W) twice → (B,) float64.

    The mean over all windows of 11 × 11 pixels that lie within the image, and over channels; weights are Gaussian with
    σ = 1.5. Windows over reflected borders, which are not counted, would add 0.01 for enlarged faces of 256 pixels and
    0.04 for faces of 64.
    Raises InputError for images smaller than a window.
    Source: Wang et al. 2004, section III.C.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(images.shape[-2:]) < SSIM_WINDOW:
        raise InputError(
            f"SSIM of {images.shape[-1]} × {images.shape[-2]} pixels; allowed are {SSIM_WINDOW} or more a side: give "
            "larger images, or cut off less of their borders"
        )
    # variances are differences of means of squares, of which float32 leaves five digits
    _, windows = structural_similarity_index_measure(
        images.double(), targets.double(), data_range=1.0, reduction="none", return_full_image=True
    )
    margin = SSIM_WINDOW // 2
    return windows[..., margin:-margin, margin:-margin].mean(dim=(1, 2, 3))


def compute_luma(images: Tensor) -> Tensor:
    """Return the luma Y as a share of 255: (B, 3, H, W) in [0, 1] → (B, 1, H, W) in [16/255, 235/255]."""
    weights = _luma_weights(images.dtype, images.device)[:, None, None]
    return ((images * weights).sum(dim=1, keepdim=True) + BLACK) / 255


@lru_cache(maxsize=8)
def _luma_weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(LUMA, dtype=dtype, device=device)


def missing_lpips_weights(net: LpipsNet | None) -> str:
    """Return which file LPIPS lacks and where it belongs; empty if the file is there, or `net` is None."""
    if net is None:
        return ""
    file, source = BACKBONES[net]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / file).is_file():
        return ""
    return f"no LPIPS: weights absent; put the file {file} of torchvision's {source} into {folder}"


@lru_cache(maxsize=2)
def _load_lpips(net: LpipsNet, device: str) -> Callable[[Tensor, Tensor], float]:
    """Return a function that measures the mean distance of two batches; its weights are read once a process."""
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

    load_imagenet_weights(*BACKBONES[net])  # torchvision would not notice a damaged file
    metric = LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True).to(device)

    def distance(image: Tensor, target: Tensor) -> float:
        if not image.isfinite().all():  # the metric raises; here NaN is a diverged net's score
            return math.nan
        value = float(metric(image, target))
        metric.reset()  # or it would collect values for the life of the process
        return value

    return distance

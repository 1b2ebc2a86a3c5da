"""Scores of restored images: PSNR, SSIM, and LPIPS where the weights it needs are found.

Nothing is downloaded, and no score comes from weights other than ImageNet's: without them LPIPS is absent, and
`missing_lpips_weights` names the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

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


class SrScores:
    """Means over all images of a split, of outputs that are first clamped to [0, 1].

    `psnr` is 10·log10(1 / mean squared error) of each image, in dB; `ssim` that of Wang et al. 2004 (windows of 11
    pixels, σ = 1.5); `lpips` that of Zhang et al. 2018, lower is better, always of all three colours. `channel` says
    whether the first two compare red, green and blue ("rgb") or the luma alone ("y"), as much of the field does.
    Raises InputError if the file of LPIPS's weights is damaged.
    """

    def __init__(self, device: str, channel: Channel = "rgb", lpips: LpipsNet | None = "alex", psnr_only: bool = False):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics import SumMetric
        from torchmetrics.image import StructuralSimilarityIndexMeasure

        self._channel = channel
        self._ssim: Any = None if psnr_only else StructuralSimilarityIndexMeasure(data_range=1.0).to(device)
        self._lpips = None if psnr_only or lpips is None or missing_lpips_weights(lpips) else _load_lpips(lpips, device)
        # not MeanMetric: it either drops NaN, a diverged net's score, or forgets the weights. Not torchmetrics' PSNR of
        # each image: it collects lists, which workers cannot combine if one of them has no image.
        self._psnr, self._distance, self._images = (SumMetric(nan_strategy="disable").to(device) for _ in range(3))

    def update(self, outputs: Outputs, batch: Batch) -> None:
        image = outputs.prediction.detach().float().clamp(0, 1)
        target = batch.targets.image
        self._images.update(len(image))
        if self._lpips is not None:
            self._distance.update(self._lpips(image, target) * len(image))
        if self._channel == "y":
            image, target = compute_luma(image), compute_luma(target)
        self._psnr.update((-10 * (image - target).square().mean(dim=(1, 2, 3)).log10()).sum())
        if self._ssim is not None:
            # variances are differences of means of squares, of which float32 leaves five digits
            self._ssim.update(image.double(), target.double())

    def compute(self) -> dict[str, float]:
        images = self._images.compute()
        scores = {"psnr": float(self._psnr.compute() / images)}
        if self._ssim is not None:
            scores["ssim"] = float(self._ssim.compute())
        if self._lpips is not None:
            scores["lpips"] = float(self._distance.compute() / images)
        return scores


def compute_luma(images: Tensor) -> Tensor:
    """Return the luma Y as a share of 255: (B, 3, H, W) in [0, 1] → (B, 1, H, W) in [16/255, 235/255]."""
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)[:, None, None]
    return ((images * weights).sum(dim=1, keepdim=True) + BLACK) / 255


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

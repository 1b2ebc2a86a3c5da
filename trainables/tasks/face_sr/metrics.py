"""How restored images are scored: PSNR, SSIM, and LPIPS where the weights it needs are there.

Left out: any download of weights, and any number from weights that are not ImageNet's. Where LPIPS lacks them it is
absent, and `lpips_lacks` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trainables.models.backbones.pretrained import load_imagenet_weights
from trainables.task import Batch, Outputs

SCORES = ("psnr", "ssim", "lpips")

Channel = Literal["rgb", "y"]
LpipsNet = Literal["alex", "vgg", "squeeze"]

BACKBONES = {
    "alex": ("alexnet-owt-7be5be79.pth", "AlexNet_Weights.IMAGENET1K_V1"),
    "vgg": ("vgg16-397923af.pth", "VGG16_Weights.IMAGENET1K_V1"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "SqueezeNet1_1_Weights.IMAGENET1K_V1"),
}
"""By the net that LPIPS compares with: its file, and torchvision's name for it."""

LUMA = (65.481, 128.553, 24.966)
BLACK = 16.0
"""Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1]. Source: ITU-R BT.601, quantised to 16…235."""


class SrScores:
    """Means over all images of a split, of outputs that are first clamped to [0, 1].

    `psnr` 10·log10(1 / mean squared error) of each image, in dB; `ssim` of Wang et al. 2004 (windows of 11 pixels,
    σ = 1.5); `lpips` of Zhang et al. 2018, lower is better, always of all three colours. By `channel` the first two are
    of red, green and blue, or of the luma alone, as much of the field reports them.
    Raises InputError if the file of LPIPS's weights is damaged.
    """

    def __init__(self, device: str, channel: Channel = "rgb", lpips: LpipsNet | None = "alex", psnr_only: bool = False):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics import SumMetric
        from torchmetrics.image import StructuralSimilarityIndexMeasure

        self._channel = channel
        self._ssim: Any = None if psnr_only else StructuralSimilarityIndexMeasure(data_range=1.0).to(device)
        self._lpips = None if psnr_only or lpips is None or lpips_lacks(lpips) else _lpips(lpips, device)
        # not MeanMetric: it either drops NaN, a diverged net's score, or forgets the weights. Not torchmetrics' PSNR of
        # each image: it keeps lists, which workers cannot put together if one of them has seen no image.
        self._psnr, self._distance, self._images = (SumMetric(nan_strategy="disable").to(device) for _ in range(3))

    def update(self, outputs: Outputs, batch: Batch) -> None:
        image = outputs.prediction.detach().float().clamp(0, 1)
        target = batch.targets.image
        self._images.update(len(image))
        if self._lpips is not None:
            self._distance.update(self._lpips(image, target) * len(image))
        if self._channel == "y":
            image, target = luma(image), luma(target)
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


def luma(images: Tensor) -> Tensor:
    """Y as a share of 255: (B, 3, H, W) in [0, 1] → (B, 1, H, W) in [16/255, 235/255]."""
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)[:, None, None]
    return ((images * weights).sum(dim=1, keepdim=True) + BLACK) / 255


def lpips_lacks(net: LpipsNet) -> str:
    """Which weights LPIPS lacks, and where they belong; empty if they are there."""
    file, source = BACKBONES[net]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / file).is_file():
        return ""
    return f"no LPIPS: weights absent; put the file {file} of torchvision's {source} into {folder}"


@lru_cache(maxsize=2)
def _lpips(net: LpipsNet, device: str) -> Callable[[Tensor, Tensor], float]:
    """The mean distance of two batches, as a function; built once in a process, since its weights are read for it."""
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

    load_imagenet_weights(*BACKBONES[net])  # torchvision would take a damaged file for sound
    metric = LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True).to(device)

    def distance(image: Tensor, target: Tensor) -> float:
        if not image.isfinite().all():  # the metric would refuse it; here it is a diverged net's score
            return math.nan
        value = float(metric(image, target))
        metric.reset()  # it would keep each value as long as the process lives
        return value

    return distance

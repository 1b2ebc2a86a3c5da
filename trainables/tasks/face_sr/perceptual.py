"""The perceptual term of a task loss: images are compared by what VGG-19 sees in them.

It is not a distillation loss: a task adds it, with a weight of its own, for all arms alike.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.logits import as_float32
from trainables.losses.common.pixel import pixel_error
from trainables.models.backbones.vgg19 import AFTER_RELU, Vgg19


def perceptual_error(vgg: Vgg19, image: Tensor, target: Tensor, norm: str = "mse") -> Tensor:
    """Σ_i error(f_i(image), f_i(target)), f_i what VGG-19 sees at its taps: (B, 3, H, W) in [0, 1] twice → ().

    Gradients reach the image alone.
    Source: Johnson et al. 2016, section 3.2. P2 names neither layers nor norm.
    """
    with torch.no_grad():
        expected = vgg(as_float32(target))
    pairs = zip(vgg(as_float32(image)), expected, strict=True)
    return torch.stack([pixel_error(norm, seen, wanted) for seen, wanted in pairs]).sum()


@lru_cache(maxsize=2)
def perceptual_vgg(device: str, folder: Path | None = None) -> Vgg19:
    """VGG-19 with ImageNet weights and taps at relu1_2, 2_2, 3_4, 4_4 and 5_4; one for the life of a process.

    Raises InputError if the file, in `folder` or where torchvision keeps it, is missing or damaged.
    """
    try:
        vgg = Vgg19(tuple(AFTER_RELU.values())).load_imagenet(folder)
    except InputError as missing:
        raise InputError(f"{missing}; a perceptual term of weight 0 needs no file") from None
    return vgg.to(device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]

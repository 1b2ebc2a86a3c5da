"""The perceptual term of a task loss, which compares VGG-19's activations for two images.

It is no distillation loss: a task adds it, with a weight of its own, to the loss of every arm.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.image_distance import pixel_error
from trainables.losses.common.logits import as_float32
from trainables.models.backbones.vgg19 import AFTER_RELU, Vgg19
from trainables.training.nets import to_device


def perceptual_error(vgg: Vgg19, image: Tensor, target: Tensor, norm: str = "mse") -> Tensor:
    """Return Σ_i error(f_i(image), f_i(target)), f_i the activations of VGG-19's tap i: (B, 3, H, W) in [0, 1] → ().

    Gradients flow to `image` alone.
    Source: Johnson et al. 2016, section 3.2. P2 names neither layers nor norm.
    """
    with torch.no_grad():
        expected = vgg(as_float32(target))
    pairs = zip(vgg(as_float32(image)), expected, strict=True)
    return torch.stack([pixel_error(norm, found, wanted) for found, wanted in pairs]).sum()


@lru_cache(maxsize=2)
def load_perceptual_vgg(device: str, folder: Path | None = None) -> Vgg19:
    """Return VGG-19 with ImageNet weights and taps at relu1_2, 2_2, 3_4, 4_4 and 5_4, loaded once a process.

    Raises InputError if the weights file, in `folder` or torchvision's cache, is missing or damaged.
    """
    try:
        vgg = Vgg19(tuple(AFTER_RELU.values())).load_imagenet(folder)
    except InputError as missing:
        raise InputError(f"{missing}; a perceptual term of weight 0 needs no file") from None
    return to_device(vgg, device)

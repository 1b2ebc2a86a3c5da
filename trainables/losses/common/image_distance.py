"""Distances of two images or feature maps: the norms that losses of super-resolution choose from."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses.common.logits import as_float32

NORMS = ("mse", "l2norm", "l1")


def pixel_error(norm: str, image: Tensor, target: Tensor) -> Tensor:
    """Return the distance of images or maps (…, C, H, W) to targets of a shape that broadcasts to theirs: ().

    "mse": mean of squared differences; "l1": mean of absolute differences; "l2norm": mean over images of
    √Σ(difference²). The images of several steps (B, T, C, H, W) take target[:, None].
    """
    difference = as_float32(image) - as_float32(target)
    if norm == "l2norm":
        norms: Tensor = torch.linalg.vector_norm(difference, dim=(-3, -2, -1))
        return norms.mean()
    return difference.square().mean() if norm == "mse" else difference.abs().mean()

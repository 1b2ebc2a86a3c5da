"""Distances of two images or feature maps: the norms that losses of super-resolution choose from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from study.errors import InputError
from study.space.domains import is_unresolved
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


def check_norm(name: str, value: Any) -> None:
    """Check a setting; raises InputError unless it is one of `NORMS`, or a domain that is not resolved yet."""
    if not is_unresolved(value) and value not in NORMS:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, NORMS))}")

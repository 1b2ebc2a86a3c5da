"""How far two images, or two maps of features, are apart: the norms that losses of super-resolution choose from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.logits import as_float32
from trainables.training.schedules import is_unresolved

NORMS = ("mse", "l2norm", "l1")


def pixel_error(norm: str, image: Tensor, target: Tensor) -> Tensor:
    """One number: (…, C, H, W) twice → ().

    "mse": mean of squared differences; "l1": mean of absolute ones; "l2norm": mean over images of √Σ(difference²).
    What has no dimension of steps counts for all of them: (B, T, C, H, W) and target[:, None].
    """
    difference = as_float32(image) - as_float32(target)
    if norm == "l2norm":
        norms: Tensor = torch.linalg.vector_norm(difference, dim=(-3, -2, -1))
        return norms.mean()
    return difference.square().mean() if norm == "mse" else difference.abs().mean()


def check_norm(name: str, value: Any) -> None:
    """Raises InputError unless `value` is one of the norms, or a domain of which the engine resolves one."""
    if not is_unresolved(value) and value not in NORMS:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, NORMS))}")

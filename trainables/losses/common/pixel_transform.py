"""Transformations of both nets' logits at each pixel before a loss compares them: LDT, or standardisation.

Logits are (N, K, …) of mean 0 over the K classes, as `centre` (per_pixel.py) makes them.
"""

from __future__ import annotations

from torch import Tensor

from trainables.losses.common.fused import std_of_centred
from trainables.losses.common.logits import EPSILON

TRANSFORMS = (None, "ldt", "standardise")


def transform_logits(transform: str | None, z_s: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's logits (N, K, …) as they are compared under one of `TRANSFORMS`.

    None leaves both as they are; "ldt" is `match_spread`; "standardise" divides each by its standard deviation.
    """
    if transform == "ldt":
        return match_spread(z_s, z_t), z_t
    return (z_s, z_t) if transform is None else (divide_by_std(z_s), divide_by_std(z_t))


def match_spread(z_s: Tensor, z_t: Tensor, detach: bool = False) -> Tensor:
    """Return z_s·σ_t/(σ_s + 1e-7), the student's logits at the teacher's spread: (N, K, …) twice → (N, K, …).

    σ: standard deviation over the classes of each pixel; with `detach` σ_s is a constant.
    Source: P0, equation 6.
    """
    sigma_s = std_of_centred(z_s.detach() if detach else z_s)
    return z_s * (std_of_centred(z_t) / (sigma_s + EPSILON))


def divide_by_std(z: Tensor, unbiased: bool = True) -> Tensor:
    """Return z/(σ + 1e-7), (N, K, …) → (N, K, …). An unbiased σ² divides by K − 1. Source: Sun et al. 2024."""
    return z / (std_of_centred(z, unbiased) + EPSILON)

"""Pearson's correlation of probabilities, as losses use it that ask for their order and not for their size."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to the product of the norms, so that a constant row has correlation 0 instead of NaN; the value of the authors
of DIST."""


def pearson(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """Return Pearson's correlation of two tensors of one shape along a dimension, which the result lacks."""
    one, other = (values - values.mean(dim=dim, keepdim=True) for values in (one, other))
    norms = [torch.linalg.vector_norm(values, dim=dim) for values in (one, other)]
    correlation: Tensor = (one * other).sum(dim=dim) / (norms[0] * norms[1] + EPSILON)
    return correlation

"""Logit standardisation: nets are compared by logits of mean 0 and standard deviation 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
"""Added to the standard deviation, so that equal logits become zeros instead of NaN; the value of the paper's code."""


def standardise(logits: Tensor, unbiased: bool = True, detached: bool = False) -> Tensor:
    """Return (z − mean)/(std + 1e-7) over the classes of each sample, or pixel: (B, M, …) → (B, M, …), M ≥ 2.

    An unbiased std divides by M − 1. Gradients flow through the std, as in the paper's code, unless it is `detached`.
    The mean need not be detached: a softmax that follows cancels its gradient.
    Source: Sun et al. 2024, algorithm 1, with the unbiased std of its code.
    """
    centred = _centre(logits)
    return centred / (_std(centred.detach() if detached else centred, unbiased) + EPSILON)


def std_over_classes(logits: Tensor) -> Tensor:
    """Return the unbiased std over the classes of each sample, or pixel: (B, M, …) → (B, 1, …), M ≥ 2."""
    return _std(_centre(logits), unbiased=True)


def _centre(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def _std(centred: Tensor, unbiased: bool) -> Tensor:
    # torch.std takes about ten times as long over the classes of a map; both have gradient 0 where the result is 0
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return norm / math.sqrt(centred.shape[1] - int(unbiased))

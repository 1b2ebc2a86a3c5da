"""Logit standardisation: nets are compared by logits of mean 0 and standard deviation 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
"""Added to the standard deviation, so that equal logits become zeros instead of NaN; the value of the paper's code."""


def standardise(logits: Tensor) -> Tensor:
    """Return (z − mean)/(std + 1e-7) over the classes of each sample: (B, M) → (B, M), M ≥ 2.

    The std is unbiased: it divides by M − 1. Gradients flow through it, as in the paper's code.
    Source: Sun et al. 2024, algorithm 1, with the unbiased std of its code.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    # unlike torch.std's, the gradient is 0 where the result is 0
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / (norm / math.sqrt(logits.shape[1] - 1) + EPSILON)

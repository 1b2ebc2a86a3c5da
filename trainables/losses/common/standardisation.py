"""Logit standardisation: the nets are compared by the form of their logits, whatever their offset and size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
"""Keeps a sample whose logits are all equal finite: it becomes all zeros."""


def standardise(logits: Tensor, unbiased: bool = True, detached: bool = False) -> Tensor:
    """(z − mean)/(std + 1e-7) over the classes of each sample, or pixel: (B, M, …) → (B, M, …), M ≥ 2.

    An unbiased std divides by M − 1. Gradients flow through it, as in the paper's code, unless it is `detached`;
    whether they flow through the mean is nothing to what comes after a softmax.
    Source: Sun et al. 2024, algorithm 1; the unbiased std is that of its code.
    """
    centred = _centred(logits)
    return centred / (_deviation(centred.detach() if detached else centred, unbiased) + EPSILON)


def std_over_classes(logits: Tensor) -> Tensor:
    """The unbiased standard deviation over the classes of each sample, or pixel: (B, M, …) → (B, 1, …), M ≥ 2."""
    return _deviation(_centred(logits), unbiased=True)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def _deviation(centred: Tensor, unbiased: bool) -> Tensor:
    # torch.std takes about ten times as long over the classes of a map; as there, the gradient is 0 where this is 0
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return norm / math.sqrt(centred.shape[1] - int(unbiased))

"""Logit standardisation: the nets are compared by the form of their logits, whatever their offset and size."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7
"""Keeps a sample whose logits are all equal finite: it becomes all zeros."""


def standardised(logits: Tensor) -> Tensor:
    """(z − mean)/(std + 1e-7) over the classes of each sample, std unbiased: (B, M) → (B, M), M ≥ 2.

    Gradients flow through mean and std, as in the paper's code.
    Source: Sun et al. 2024, algorithm 1; the unbiased std is that of its code.
    """
    std, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (std + EPSILON)

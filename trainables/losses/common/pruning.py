"""Logits pruning (LP): which classes a distillation loss looks at.

A loss on logits gathers the kept classes (logits.py) and is computed on them as if no others existed. That is
the limit of giving the pruned ones a probability of 0, without masks, infinities or their NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from study.errors import InputError

FEWEST_CLASSES = 3
"""The target and two others: fewer leave nothing to compare among the non-target classes."""


def select_kept_classes(teacher: Tensor, targets: Tensor, share: float) -> Tensor:
    """The non-target classes that stay when the teacher's lowest `share` of all classes is pruned.

    ⌊share·K⌋ classes of each sample go, those with the lowest teacher logits; of equal ones the lower class
    goes first. The target neither goes nor counts, and two others always stay. `teacher` is (B, K), `targets`
    (B,) int64; returns (B, M) int64, in no particular order. M depends on `share` and K alone: no step waits
    for the device. Logits are compared in half precision: a live teacher and one stored as fp16 prune alike.

    Raises InputError for fewer than 3 classes.
    Source: P1, logits pruning. It says "the lowest p %" without saying of what, or how to round; read here as
    p % of K classes, rounded down, taken from among the non-target ones.
    """
    classes = teacher.shape[1]
    if classes < FEWEST_CLASSES:
        raise InputError(
            f"logits of {classes} classes; distillation takes {FEWEST_CLASSES} or more: use NoDistillation"
        )
    others = _other_classes(targets, classes)
    pruned = _pruned_count(share, classes)
    if pruned == 0:
        return others
    ascending = teacher.detach().half().gather(1, others).sort(dim=1, stable=True).indices
    return others.gather(1, ascending[:, pruned:])


def _pruned_count(share: float, classes: int) -> int:
    # 0.29 · 100 is 28.999999999999996: without the addend one class fewer than asked for would go.
    return min(math.floor(share * classes + 1e-9), classes - FEWEST_CLASSES)


def _other_classes(targets: Tensor, classes: int) -> Tensor:
    """Per sample all classes but the target, ascending: (B, K − 1)."""
    others = torch.arange(classes - 1, device=targets.device)
    return others + (others >= targets[:, None])

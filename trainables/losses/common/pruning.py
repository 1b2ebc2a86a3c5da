"""Logits pruning (LP): selection of the classes that a distillation loss is computed on.

A loss on logits gathers the kept classes (logits.py) and treats them as the only ones. This is the limit of giving
pruned classes a probability of 0, without masks, infinities or the NaN that come of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from study.errors import InputError

FEWEST_KEPT = 3
"""The smallest number of classes that pruning leaves: with one non-target class there is nothing to compare among
them."""


def select_kept_classes(teacher: Tensor, targets: Tensor, share: float) -> Tensor:
    """Return the non-target classes that remain after pruning the `share` of classes with the lowest teacher logits.

    Teacher logits (B, K), targets (B,) int64 → (B, M) int64, in no particular order. ⌊share·K⌋ non-target classes of
    each sample are pruned, the lower class first among equal logits; at least two non-target classes remain, so that of
    two or three classes none is pruned.
    M depends on `share` and K alone, so no step waits for the device. Logits are compared in float16, so that a live
    teacher and one stored as float16 prune the same classes.
    Raises InputError for fewer than 2 classes.
    Source: P1, logits pruning: "the lowest p %", without the base or the rounding; read here as p % of K classes,
    rounded down, taken from the non-target classes.
    """
    classes = teacher.shape[1]
    if classes < 2:
        raise InputError(f"logits of {classes} class; allowed are 2 or more for distillation: use NoDistillation")
    others = _other_classes(targets, classes)
    pruned = _pruned_count(share, classes)
    if pruned == 0:
        return others
    ascending = teacher.detach().half().gather(1, others).sort(dim=1, stable=True).indices
    return others.gather(1, ascending[:, pruned:])


def _pruned_count(share: float, classes: int) -> int:
    # 0.29 · 100 is 28.999999999999996: without the addend one class too few would be pruned
    return min(math.floor(share * classes + 1e-9), max(0, classes - FEWEST_KEPT))


def _other_classes(targets: Tensor, classes: int) -> Tensor:
    """Return each sample's non-target classes, ascending: (B,) → (B, K − 1)."""
    others = torch.arange(classes - 1, device=targets.device)
    return others + (others >= targets[:, None])

"""Check of a teacher's file for labels in another order, by the confusion of its predictions with the true classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainables.task import index_device

if TYPE_CHECKING:
    from trainables.tasks.base import DistillationTask

LEAST_SHARE = 0.5
"""Share of the moved classes' samples that must be predicted as the class assigned to them. A net that knows nothing
reaches 1 / number of classes, one with its labels in another order its accuracy."""

LARGEST_OWN = 0.1
"""Largest share of the same samples that may be predicted as their own class; a net that confuses two has more."""


@torch.no_grad()
def count_confusions(task: DistillationTask[Any], net: nn.Module, device: str) -> npt.NDArray[np.int64] | None:
    """Return how often each true class is predicted as each class on validation, (K, K); None for other predictions."""
    net.eval()
    examples, counts = task.examples("val", device), torch.zeros(0)
    indices = index_device(examples, device)
    for samples in torch.arange(len(examples), device=indices).split(task.evaluation_batch(device)):
        batch = examples.batch(samples, torch.zeros_like(samples))
        outputs = task.outputs(net, batch)
        classes = task.predict_classes(outputs, batch)
        if classes is None:
            return None
        predicted, true = classes
        number = outputs.prediction.shape[1]
        found = torch.bincount((true * number + predicted).flatten(), minlength=number**2).view(number, number)
        counts = found if not counts.numel() else counts + found
    return np.asarray(counts.cpu().numpy(), dtype=np.int64)


def find_label_order(confusions: npt.NDArray[np.int64]) -> dict[str, Any] | None:
    """Return the order of labels that a net was trained with, if its predictions fit another than the true one.

    `confusions` (K, K) counts true classes by predicted ones. The order is the assignment of predicted to true classes
    with the most hits; the result has the classes that it moves, as pairs of the true class and the one predicted for
    it, and the accuracies as the labels are, and in that order. Returns None for a net that gives its classes their
    own labels, however badly.
    Source of the assignment: Kuhn 1955.
    """
    # imported late: it takes half a second, which commands that read no teacher's file need not wait for
    from scipy.optimize import linear_sum_assignment

    true, predicted = linear_sum_assignment(-confusions)
    moved = true[true != predicted]
    support = confusions.sum(axis=1)
    samples, total = support[moved].sum(), support.sum()
    if not samples:
        return None
    as_assigned = confusions[moved, predicted[moved]].sum() / samples
    as_own = confusions[moved, moved].sum() / samples
    if as_assigned < LEAST_SHARE or as_own > LARGEST_OWN:
        return None
    return {
        "moved": [[int(label), int(predicted[label])] for label in moved],
        "classes": len(confusions),
        "accuracy": float(np.trace(confusions) / total),
        "accuracy_in_order": float(confusions[true, predicted].sum() / total),
    }

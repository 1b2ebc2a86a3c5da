"""Scores of label maps, and pictures of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from study.task import Metric
from trainables.data.arrays.face_decoding import CLASSES
from trainables.losses.common.row_blocks import argmax_over_classes
from trainables.task import Batch, Outputs, Panel

BACKGROUND = 0
F1_BY_CLASS = tuple(Metric(f"class_f1_{name}", "max", "%", 2) for name in CLASSES)
MEANS = (
    Metric("f1", "max", "%", 2, label="F1"),
    Metric("f1_all", "max", "%", 2, label="F1 with background"),
    Metric("miou", "max", "%", 2, label="mIoU"),
    Metric("accuracy", "max", "%", 2),
)


class ParsingScores:
    """Shares in [0, 1], from the confusion counts of each class over all pixels of a split.

    `class_f1_…` is F1 = 2·TP / (2·TP + FP + FN) of a class; `f1` the mean without the background, as the field reports
    CelebAMask-HQ; `f1_all` the mean with it; `miou` the mean of TP / (TP + FP + FN) over all classes with it, as
    segmentation is usually scored; `accuracy` the share of correct pixels. A class without labels in the split has no
    F1 and enters no mean.
    """

    def __init__(self, device: str, by_class: bool = True):
        self._by_class = by_class
        self._confusion = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64, device=device)
        """Pixels by label (K,) and predicted label (K,)."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        # not torchmetrics' counts: their torch.bincount waits for the device
        cells = (batch.targets * len(CLASSES) + predict_labels(outputs, batch.targets)).flatten()
        self._confusion.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, float]:
        confusion = self._confusion.clone()
        if dist.is_initialized():
            dist.all_reduce(confusion)
        confusion = confusion.double()
        hits, support = confusion.diagonal(), confusion.sum(dim=1)  # (K,), as the next two
        false_positives, misses = confusion.sum(dim=0) - hits, support - hits
        f1 = 2 * hits / (2 * hits + false_positives + misses)
        labelled = support > 0
        foreground = labelled.clone()
        foreground[BACKGROUND] = False
        iou = hits / (hits + false_positives + misses)
        means = {"f1": f1[foreground].mean(), "f1_all": f1[labelled].mean(), "miou": iou[labelled].mean()}
        means |= {"accuracy": hits.sum() / support.sum()}
        if self._by_class:
            means |= {metric.name: f1[index] for index, metric in enumerate(F1_BY_CLASS) if labelled[index]}
        return {name: float(value) for name, value in means.items()}


def predict_labels(outputs: Outputs, labels: Tensor) -> Tensor:
    """Return the likeliest class of each pixel at the labels' resolution: (B, K, h, w), (B, H, W) → (B, H, W)."""
    return argmax_over_classes(outputs.prediction, (labels.shape[1], labels.shape[2]))


def draw_parsing_panels(outputs: Outputs, batch: Batch, images: Tensor) -> list[Panel]:
    """Return panels of one face (1, 3, H, W) uint8: the face, its labels, the predicted labels, and the logits.

    The logits' panels show mean and standard deviation over the classes at each pixel of the net's head. Source: P0,
    figure 2.
    """
    logits = outputs.prediction[0].float()
    predicted = predict_labels(outputs, batch.targets)[0]
    right = (predicted == batch.targets[0]).float().mean()
    return [
        Panel("face", "image", images[0], given=True),
        Panel("true labels", "labels", batch.targets[0].to(torch.uint8), given=True, classes=CLASSES),
        Panel("labels", "labels", predicted.to(torch.uint8), f"{100 * right:.1f} % of pixels right", classes=CLASSES),
        Panel("mean of the logits", "map", logits.mean(dim=0), scale="mean of the logits"),
        Panel("deviation of the logits", "map", logits.std(dim=0), scale="standard deviation of the logits"),
    ]

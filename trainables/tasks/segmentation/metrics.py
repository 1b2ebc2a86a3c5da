"""Scores of label maps, and pictures of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from study.task import Metric
from trainables.data.arrays.label_maps import ClassTable
from trainables.losses.common.row_blocks import argmax_over_classes
from trainables.task import IGNORED, Batch, Outputs, Panel

F1, MIOU = Metric("f1", "max", "%", 2, label="F1"), Metric("miou", "max", "%", 2, label="mIoU")
F1_ALL = Metric("f1_all", "max", "%", 2, label="F1 with background")
ACCURACY = Metric("accuracy", "max", "%", 2)


def define_means(table: ClassTable) -> tuple[Metric, ...]:
    """Return the scores over all classes: the F1 with background only where there is one."""
    return (F1, *([F1_ALL] if table.background is not None else []), MIOU, ACCURACY)


def define_class_scores(table: ClassTable) -> tuple[Metric, ...]:
    """Return the F1 of each class."""
    return tuple(Metric(f"class_f1_{name}", "max", "%", 2) for name in table.names)


class SegmentationScores:
    """Shares in [0, 1], from the confusion counts of each class over all pixels of a split; IGNORED pixels count not.

    `class_f1_…` is F1 = 2·TP / (2·TP + FP + FN) of a class; `f1` the mean without the background, as the field reports
    CelebAMask-HQ; `f1_all` the mean with it; `miou` the mean of TP / (TP + FP + FN) over all classes with it, as
    segmentation is usually scored; `accuracy` the share of correct pixels. A class without labels in the split has no
    F1 and enters no mean; a mean over nothing is NaN.
    """

    def __init__(self, table: ClassTable, device: str, by_class: bool = True):
        self._table, self._by_class = table, by_class
        self._confusion = torch.zeros(len(table) + 1, len(table), dtype=torch.int64, device=device)
        """Pixels by label (K,) and predicted label (K,); the last row has those without a label."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        # not torchmetrics' counts: their torch.bincount waits for the device
        classes = len(self._table)
        rows = batch.targets.clamp(max=classes)
        cells = (rows * classes + predict_labels(outputs, batch.targets)).flatten()
        self._confusion.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, float]:
        confusion = self._confusion.clone()
        if dist.is_initialized():
            dist.all_reduce(confusion)
        confusion = confusion[:-1].double()
        hits, support = confusion.diagonal(), confusion.sum(dim=1)  # (K,), as the next two
        false_positives, misses = confusion.sum(dim=0) - hits, support - hits
        f1 = 2 * hits / (2 * hits + false_positives + misses)
        labelled = support > 0
        iou = hits / (hits + false_positives + misses)
        is_foreground = torch.tensor([name != self._table.background for name in self._table.names], device=f1.device)
        means = {"f1": f1[labelled & is_foreground].mean(), "miou": iou[labelled].mean()}
        means |= {"accuracy": hits.sum() / support.sum()}
        if self._table.background is not None:
            means |= {"f1_all": f1[labelled].mean()}
        if self._by_class:
            scores = enumerate(define_class_scores(self._table))
            means |= {metric.name: f1[index] for index, metric in scores if labelled[index]}
        return {name: float(value) for name, value in means.items()}


def predict_labels(outputs: Outputs, labels: Tensor) -> Tensor:
    """Return the likeliest class of each pixel at the labels' resolution: (B, K, h, w), (B, H, W) → (B, H, W)."""
    return argmax_over_classes(outputs.prediction, (labels.shape[1], labels.shape[2]))


def draw_panels(outputs: Outputs, batch: Batch, images: Tensor, table: ClassTable, subject: str) -> list[Panel]:
    """Return panels of one image (1, 3, H, W) uint8: the image, its labels, the predicted labels, and the logits.

    The logits' panels show mean and standard deviation over the classes at each pixel of the net's head. Source: P0,
    figure 2. IGNORED pixels have a colour of their own.
    """
    logits, labels = outputs.prediction[0].float(), batch.targets[0]
    predicted, is_counted = predict_labels(outputs, batch.targets)[0], labels != IGNORED
    right = (predicted == labels)[is_counted].float().mean().nan_to_num()
    classes = table.names if is_counted.all() else (*table.names, "ignored")
    true = labels.clamp(max=len(table)).to(torch.uint8)
    return [
        Panel(subject, "image", images[0], given=True),
        Panel("true labels", "labels", true, given=True, classes=classes),
        Panel("labels", "labels", predicted.to(torch.uint8), f"{100 * right:.1f} % of pixels right", classes=classes),
        Panel("mean of the logits", "map", logits.mean(dim=0), scale="mean of the logits"),
        Panel("deviation of the logits", "map", logits.std(dim=0), scale="standard deviation of the logits"),
    ]

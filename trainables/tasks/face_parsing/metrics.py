"""How label maps are scored, and what of them is shown."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.data.arrays.face_decoding import CLASSES
from trainables.losses.common.per_pixel import upsample_logits
from trainables.task import Batch, Outputs, Panel

BACKGROUND = 0
F1_BY_CLASS = tuple(f"class_f1_{name}" for name in CLASSES)
MEANS = ("f1", "f1_all", "accuracy")


class ParsingScores:
    """Shares in [0, 1], from one count of hits and misses of each class over all pixels of a split.

    `class_f1_…` F1 = 2·TP / (2·TP + FP + FN) of a class; `f1` their mean without the background, as the field reports
    CelebAMask-HQ; `f1_all` with it; `accuracy` the share of pixels that are right. A class that no label of the split
    names has no F1 and is in no mean.
    """

    def __init__(self, device: str, by_class: bool = True):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics.classification import MulticlassStatScores

        self._by_class = by_class
        self._counts = MulticlassStatScores(len(CLASSES), average="none", validate_args=False).to(device)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._counts.update(predicted(outputs, batch.targets), batch.targets)

    def compute(self) -> dict[str, float]:
        hits, wrongly, _, missed, there = self._counts.compute().double().unbind(dim=1)
        f1 = 2 * hits / (2 * hits + wrongly + missed)
        named = there > 0
        seen = named.clone()
        seen[BACKGROUND] = False
        means = (float(f1[seen].mean()), float(f1[named].mean()), float(hits.sum() / there.sum()))
        by_class = {name: float(f1[index]) for index, name in enumerate(F1_BY_CLASS) if named[index]}
        return dict(zip(MEANS, means, strict=True)) | (by_class if self._by_class else {})


def predicted(outputs: Outputs, labels: Tensor) -> Tensor:
    """The likeliest class of each pixel at the labels' resolution: (B, K, h, w), (B, H, W) → (B, H, W)."""
    return upsample_logits(outputs.prediction.detach(), (labels.shape[1], labels.shape[2])).argmax(dim=1)


def parsing_panels(outputs: Outputs, batch: Batch, images: Tensor) -> list[Panel]:
    """What there is to see of one face (1, 3, H, W) uint8: itself, its labels, the predicted ones, and the logits.

    Of the logits mean and standard deviation over the classes, at each pixel of the net's head. Source: P0, figure 2.
    """
    logits = outputs.prediction[0].float()
    said = predicted(outputs, batch.targets)[0]
    right = (said == batch.targets[0]).float().mean()
    return [
        Panel("face", "image", images[0], given=True),
        Panel("true labels", "labels", batch.targets[0].to(torch.uint8), given=True, classes=CLASSES),
        Panel("labels", "labels", said.to(torch.uint8), f"{100 * right:.1f} % of pixels right", classes=CLASSES),
        Panel("mean of the logits", "map", logits.mean(dim=0), scale="mean of the logits"),
        Panel("deviation of the logits", "map", logits.std(dim=0), scale="standard deviation of the logits"),
    ]

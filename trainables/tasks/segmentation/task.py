"""Segmentation: nets give each pixel of an image one of K classes; scored by F1, mIoU and accuracy.

Nets return logits at the resolution of their heads, at which teacher outputs are stored. Losses and scores upsample
them bilinearly to the labels' resolution, as torchvision's nets do (losses/common/per_pixel.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from study.errors import InputError
from study.task import Metric
from study.trial import Split
from trainables.data.arrays.label_maps import ClassTable, LabelMapSet
from trainables.losses.common.logits import autocast_disabled, kl_divergence
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.common.row_blocks import mean_cross_entropy
from trainables.models.hooks import TappedOutput, adapt_inputs
from trainables.task import IGNORED, Batch, DistillationLoss, ModelSpec, Outputs, Panel, without_pretrained
from trainables.tasks.base import DistillationTask
from trainables.tasks.preflight import blank_batch
from trainables.tasks.segmentation.examples import LabelledPixels
from trainables.tasks.segmentation.metrics import (
    SegmentationScores,
    define_class_scores,
    define_means,
    draw_panels,
    predict_labels,
)
from trainables.training.views import CropFlip, Flips, denormalise

SAMPLE_PIXELS = 64
"""Side of the blank image on which nets are tried, at most: the largest of their strides needs no more."""


@dataclass(frozen=True)
class Segmentation(DistillationTask[LabelMapSet]):
    """Train students on images with a class for each pixel, score them by the F1 of each class, pooled over all pixels.

    The data's own validation split scores the search; the teacher learns from its training split alone. The data's
    settings have a `class_table`: the names of the classes, the background, and the classes that trade places in the
    mirror image. Data of your own need one, and a `load` that returns a LabelMapSet.
    """

    views: Flips | CropFlip = field(default_factory=Flips)

    prediction = "class logits (B, K, h, w) at the head's resolution; upsampled, the largest is a pixel's class"
    dataset_type: ClassVar = LabelMapSet
    allowed_data: ClassVar = "SegmentationFolder, CelebAMaskHQ, DrawnFaces"
    subject: ClassVar = "image"
    """The name of an image in the report's pictures."""
    # at 512 × 512 pixels the upsampled logits of 19 classes are 20 MB an image
    evaluation_batch_sizes: ClassVar = {"cpu": 8, "cuda": 16}

    @property
    def class_table(self) -> ClassTable:
        """The classes of the data. Raises InputError for data without them."""
        return self.get_table("class_table", ClassTable)

    @property
    def scores(self) -> Sequence[Metric]:
        return (*define_means(self.class_table), *define_class_scores(self.class_table))

    @property
    def train_scores(self) -> Sequence[Metric]:
        return define_means(self.class_table)

    def adapt_to(self, loss: DistillationLoss) -> Self:
        if getattr(loss, "compares_classes", False) and not hasattr(loss, "resolution"):
            raise InputError(
                f"{type(loss).__name__} compares the classes of images, not of pixels; allowed are PixelKD, PixelDKD, "
                "PixelKDStd, PixelDIST, LDT, CWD, losses on features, and losses of your own"
            )
        return super().adapt_to(loss)

    def build(self, model: ModelSpec) -> nn.Module:
        net = model.build(classes=len(self.class_table))
        return adapt_inputs(net, model, (self.loaded.mean, self.loaded.std))

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        returned = net(batch.inputs)
        features = returned.features if isinstance(returned, TappedOutput) else {}
        logits = returned.prediction if isinstance(returned, TappedOutput) else returned
        if isinstance(logits, Mapping) and "out" in logits:  # as torchvision's nets for segmentation return them
            logits = logits["out"]
        classes = len(self.class_table)
        if not isinstance(logits, Tensor) or logits.dim() != 4 or logits.shape[1] != classes:
            given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"a net returns {given} for images {tuple(batch.inputs.shape)}; needed are logits (B, {classes}, h, w)"
            )
        return Outputs(logits, features)

    def load_examples(self, split: Split, device: str) -> LabelledPixels:
        maps, mirrored = self.loaded, torch.tensor(self.class_table.mirror(), device=device)
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (maps.mean, maps.std))
        return LabelledPixels(maps.split(split), self.views, mean, std, mirrored)

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*self.loaded.bounds(split))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the upsampled logits (B, K, H, W), mean over all pixels of the batch; 0 of IGNORED ones."""
        with autocast_disabled(outputs):
            return mean_cross_entropy(outputs.prediction, batch.targets)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """KL(teacher ‖ student) of the probabilities at the student's own resolution, mean over its pixels."""
        size = (student.prediction.shape[2], student.prediction.shape[3])
        return kl_divergence(
            upsample_logits(student.prediction, size), upsample_logits(teacher.prediction, size)
        ).mean()

    def predict_classes(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        is_counted = batch.targets != IGNORED
        return predict_labels(outputs, batch.targets)[is_counted], batch.targets[is_counted]

    def meters(self, device: str, split: Split) -> SegmentationScores:
        return SegmentationScores(self.class_table, device, by_class=split != "train")

    def sample_batch(self) -> Batch:
        height, width = (min(side, SAMPLE_PIXELS) for side in self._image_size)
        return blank_batch(torch.zeros(1, 3, height, width), torch.zeros(1, height, width, dtype=torch.int64))

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        images = denormalise(batch.inputs, self.loaded.mean, self.loaded.std)
        return draw_panels(outputs, batch, images, self.class_table, self.subject)

    @property
    def output_bytes(self) -> int:
        height, width = _find_head_size(self)
        return 2 * len(self.class_table) * height * width

    def data_record(self) -> dict[str, Any]:
        return {"classes": len(self.class_table), "class_names": list(self.class_table.names)}

    @property
    def _image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        height, width = self.loaded.pool.images.shape[-2:]
        return height, width


@lru_cache(maxsize=8)
def _find_head_size(task: Segmentation) -> tuple[int, int]:
    """Return height and width of the teacher's logits: by its stride, or by trying it where its settings have none."""
    model, size = task.teacher.model, task._image_size
    if stride := getattr(model, "stride", None):
        return -(-size[0] // stride), -(-size[1] // stride)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        net = task.build(without_pretrained(model)).eval()
        blank = blank_batch(torch.zeros(1, 3, *size), None)
        height, width = task.outputs(net, blank).prediction.shape[2:]
    return height, width

"""Face parsing: nets give each pixel of a face one of 19 classes; scored by the mean F1 of those but the background.

Nets return logits at the resolution of their heads, at which teacher outputs are stored. Losses and scores upsample
them bilinearly to the labels' resolution, as torchvision's nets do (losses/common/per_pixel.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from study.trial import Split
from trainables.data.arrays.face_decoding import CLASSES
from trainables.data.arrays.face_parsing import FaceSet
from trainables.losses.common.logits import autocast_disabled, kl_divergence
from trainables.losses.common.per_pixel import upsample_logits
from trainables.losses.common.row_blocks import mean_cross_entropy
from trainables.task import Batch, ModelSpec, Outputs, Panel
from trainables.tasks.base import DistillationTask
from trainables.tasks.face_parsing.examples import MIRRORED, FaceExamples
from trainables.tasks.face_parsing.metrics import (
    F1_BY_CLASS,
    MEANS,
    ParsingScores,
    draw_parsing_panels,
    predict_labels,
)
from trainables.tasks.preflight import blank_batch
from trainables.training.views import Flips, denormalise

SAMPLE_PIXELS = 64
"""Side of the blank face on which nets are tried, at most: the largest of their strides needs no more."""


class SegmentationSpec(ModelSpec, Protocol):
    """The settings of a net for label maps, see trainables/models/segmentation.py."""

    @property
    def stride(self) -> int:
        """Pixels of the image, a side, for each pixel of the head."""


@dataclass(frozen=True)
class FaceParsing(DistillationTask[FaceSet]):
    """Train students on faces and their mirror images, score them by the F1 of each class, pooled over all pixels.

    The data's own validation split scores the search; the teacher learns from its training split alone.
    """

    views: Flips = field(default_factory=Flips)

    scores = (*MEANS, *F1_BY_CLASS)
    train_scores = MEANS
    prediction = "class logits (B, K, h, w) at the head's resolution; upsampled, the largest is a pixel's class"
    dataset_type: ClassVar = FaceSet
    allowed_data: ClassVar = "CelebAMaskHQ, DrawnFaces"
    # at 512 × 512 pixels the upsampled logits are 20 MB a face
    evaluation_batch_sizes: ClassVar = {"cpu": 8, "cuda": 16}

    def build(self, model: ModelSpec) -> nn.Module:
        return model.build(len(CLASSES))

    def load_examples(self, split: Split, device: str) -> FaceExamples:
        faces = self.loaded
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (faces.mean, faces.std))
        return FaceExamples(faces.split(split), self.views, mean, std, torch.tensor(MIRRORED, device=device))

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*self.loaded.bounds(split))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the upsampled logits (B, K, H, W), mean over all pixels of the batch."""
        with autocast_disabled(outputs):
            return mean_cross_entropy(outputs.prediction, batch.targets)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """KL(teacher ‖ student) of the probabilities at the student's own resolution, mean over its pixels."""
        size = (student.prediction.shape[2], student.prediction.shape[3])
        return kl_divergence(
            upsample_logits(student.prediction, size), upsample_logits(teacher.prediction, size)
        ).mean()

    def predict_classes(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        return predict_labels(outputs, batch.targets), batch.targets

    def meters(self, device: str, split: Split) -> ParsingScores:
        return ParsingScores(device, by_class=split != "train")

    def sample_batch(self) -> Batch:
        side = min(self._side, SAMPLE_PIXELS)
        return blank_batch(torch.zeros(1, 3, side, side), torch.zeros(1, side, side, dtype=torch.int64))

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        return draw_parsing_panels(outputs, batch, denormalise(batch.inputs, self.loaded.mean, self.loaded.std))

    @property
    def output_bytes(self) -> int:
        side = -(-self._side // cast(SegmentationSpec, self.teacher.model).stride)
        return 2 * len(CLASSES) * side**2

    def data_record(self) -> dict[str, int]:
        return {"classes": len(CLASSES)}

    @property
    def _side(self) -> int:
        return int(self.loaded.pool.images.shape[-1])

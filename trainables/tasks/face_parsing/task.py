"""Face parsing: nets give each pixel of a face one of 19 classes; scored by the mean F1 of those but the background.

Nets return logits at the resolution of their heads, which is what is stored of a teacher. Losses and scores bring them
to the labels' resolution, bilinearly, as torchvision's nets do (losses/per_pixel.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.identity import describe, digest
from study.task import SPLITS
from study.trial import Direction, Split
from trainables.data.arrays.face_decoding import CLASSES
from trainables.data.arrays.face_parsing import FaceSet
from trainables.losses.common.logits import kl_divergence
from trainables.losses.common.per_pixel import upsample_logits
from trainables.task import Batch, Outputs, Panel
from trainables.tasks.base import Taught
from trainables.tasks.face_parsing.examples import FaceExamples, face_examples
from trainables.tasks.face_parsing.metrics import F1_BY_CLASS, MEANS, ParsingScores, parsing_panels
from trainables.tasks.preflight import check_students, empty_batch
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe
from trainables.training.views import Flips, denormalise

EVALUATION_BATCH = {"cpu": 8, "cuda": 16}
"""By device; at 512 × 512 pixels a batch's upsampled logits are 20 MB a face."""

TRIED_PIXELS = 64
"""The side of the empty face that nets are tried on: no more than the largest of their strides asks for."""


class FaceData(Protocol):
    """A data set of faces with a label for each pixel, see trainables/data/."""

    def load(self) -> FaceSet: ...

    def __hash__(self) -> int: ...


class SegmentationNetSpec(Protocol):
    """A net for label maps by its settings, see trainables/models/segmentation.py."""

    @property
    def name(self) -> str: ...

    @property
    def stride(self) -> int: ...

    def build(self, classes: int) -> nn.Module: ...


@dataclass(frozen=True)
class FaceParsing(Taught):
    """Train students on faces and their mirror images, score by the F1 of each class, pooled over all pixels.

    The data's own validation split is what the search scores on; the teacher learns from its training split alone.
    """

    data: FaceData
    teacher: Teacher
    recipe: Recipe
    views: Flips = field(default_factory=Flips)
    teacher_store: bool = True
    """Whether the teacher's logits are stored for both views, or computed anew at every step."""

    # -- for the engine --------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Mapping[str, Direction]:
        losses = ("loss", "task_loss", "distill_loss", "teacher_distance")
        scored = [f"train/{name}" for name in MEANS]
        scored += [
            f"{split}/{name}" for split in ("val", "test", "test_at_best_val") for name in (*MEANS, *F1_BY_CLASS)
        ]
        lower = [*(f"train/{name}" for name in losses), "best_val_epoch"]
        directions: dict[str, Direction] = dict.fromkeys(lower, "min")
        return directions | dict.fromkeys(scored, "max")

    @property
    def selection_metric(self) -> str:
        return "val/f1"

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        faces, key = load(self.data), self.teacher_key
        side = min(self._side, TRIED_PIXELS)
        labels = torch.zeros(1, side, side, dtype=torch.int64)
        empty = empty_batch(torch.zeros(1, 3, side, side), labels)
        check_students(self, students, losses, storage, trained_on, empty)
        train, val, test = faces.sizes
        return {
            "data": {
                "name": faces.name,
                "note": faces.note,
                "complete": faces.complete,
                "fingerprint": faces.fingerprint,
                "classes": len(CLASSES),
                "train": train,
                "val": val,
                "test": test,
            },
            "teacher": {"fingerprint": key},
        }

    # -- for the training loop -------------------------------------------------------------------------------------

    def examples(self, split: Split, device: str) -> FaceExamples:
        return _examples(self.data, split, device)

    def evaluation_batch(self, device: str) -> int:
        return EVALUATION_BATCH[device]

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        return Outputs(net(batch.inputs))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the upsampled logits, mean over all pixels of the batch."""
        labels = batch.targets
        return F.cross_entropy(upsample_logits(outputs.prediction, (labels.shape[1], labels.shape[2])), labels)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """KL(teacher ‖ student) of the probabilities at the student's own resolution, mean over its pixels."""
        size = (student.prediction.shape[2], student.prediction.shape[3])
        return kl_divergence(
            upsample_logits(student.prediction, size), upsample_logits(teacher.prediction, size)
        ).mean()

    def meters(self, device: str, split: Split) -> ParsingScores:
        return ParsingScores(device, by_class=split != "train")

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        faces = load(self.data)
        return parsing_panels(outputs, batch, denormalise(batch.inputs, faces.mean, faces.std))

    # -- nets and inputs -------------------------------------------------------------------------------------------

    def build(self, model: SegmentationNetSpec) -> nn.Module:
        return model.build(len(CLASSES))

    @property
    def teacher_key(self) -> str:
        return self.teacher.compute_key([self.pool_key, list(load(self.data).sizes), describe(self.views)])

    @property
    def pool_key(self) -> str:
        faces = load(self.data)
        return digest(faces.fingerprint, faces.mean, faces.std)

    @property
    def stored_output_bytes(self) -> int | None:
        if not self.teacher_store:
            return None
        side = -(-self._side // int(self.teacher.model.stride))
        return 2 * len(CLASSES) * side**2  # float16 logits of the teacher's head

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*load(self.data).bounds(split))

    @property
    def _side(self) -> int:
        return int(load(self.data).pool.images.shape[-1])


# Kept for the life of a process: a reused worker opens the data once, not once a trial.


@lru_cache(maxsize=2)
def load(data: FaceData) -> FaceSet:
    return data.load()


@lru_cache(maxsize=8)
def _examples(data: FaceData, split: Split, device: str) -> FaceExamples:
    faces = load(data)
    return face_examples(
        {"train": faces.train, "val": faces.val, "train+val": faces.pool, "test": faces.test}[split], faces, device
    )

"""Image classification by the field's CIFAR protocol, on CIFAR-10, CIFAR-100, scikit-learn's digits and own images.

Images stay on the device as uint8, unless they are too many; there each batch is cropped and flipped. There is no
DataLoader.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import IF_SET
from study.task import Metric
from study.trial import Split
from trainables.data.arrays.splits import ImageSet, split_pool
from trainables.losses.common.logits import kl_divergence
from trainables.models.hooks import adapt_inputs
from trainables.task import Batch, DistillationLoss, ModelSpec, Outputs
from trainables.tasks.base import DistillationTask
from trainables.tasks.classification.examples import (
    MappedImages,
    MixedImages,
    ResidentImages,
    are_mapped,
    make_examples,
)
from trainables.tasks.classification.metrics import ACCURACY, RECALL, ClassifierScores, check_names, define_score
from trainables.training.mixing import ImageViews, Mixed
from trainables.training.recipe import Recipe
from trainables.training.settings import is_number
from trainables.training.views import CropFlip


@dataclass(frozen=True)
class Classification(DistillationTask[ImageSet]):
    """Train students on labelled images, score them by top-1 accuracy or by `metric_names`.

    The study's seed does not move the split, so that one teacher serves all studies of a split.
    Raises InputError for a `validation` outside (0, 1), and for names and weights that are not as described below.
    """

    recipe: Recipe = field(default_factory=Recipe)
    views: ImageViews | Mixed = field(default_factory=lambda: CropFlip(padding=4, flip=True))
    validation: float = 0.1
    """The share of the training images held out, stratified by class, where the data have no validation split."""
    split_seed: int = 0
    metric_names: tuple[str, ...] | None = field(default=None, metadata=IF_SET)
    """The scores, of which the first selects the best epoch; by default ("accuracy",). "top5" and "macro_f1", the
    "recall_<class>" of a class, and metrics of torchmetrics.classification by name are measured in validation and test
    alone."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = field(default=None, metadata=IF_SET)
    """Weight of each class in the task loss, or "balanced": in inverse proportion to its training images, 1 on average.
    By default all images count alike."""

    prediction = "class logits (B, K); their softmax gives probabilities"
    dataset_type: ClassVar = ImageSet
    allowed_data: ClassVar = "Cifar, Digits, ImageFolder, ImageParquet, ImageTable"
    evaluation_batch_sizes: ClassVar = {"cpu": 64, "cuda": 1024}  # small for a core's cache, large to fill a GPU
    further_distances = (Metric("teacher_l2", "min", label="L2 distance to the teacher"),)

    def __post_init__(self) -> None:
        if not _are_weights(weights := self.class_weights):
            raise InputError(
                f'class_weights is {weights!r}; allowed are "balanced" and a tuple of finite numbers above 0'
            )
        if not (is_number(self.validation) and 0 < self.validation < 1):
            raise InputError(
                f"validation is {self.validation!r}; allowed is a share of the training images between 0 and 1"
            )
        if self.metric_names is not None:
            check_names(self.metric_names)

    @property
    def scores(self) -> Sequence[Metric]:
        return [define_score(name) for name in self.metric_names or ("accuracy",)]

    @property
    def train_scores(self) -> Sequence[Metric]:
        """Accuracy alone: other scores would wait for the device at each step."""
        return [score for score in self.scores if score is ACCURACY]

    def build(self, model: ModelSpec) -> nn.Module:
        images = self.loaded
        net = model.build(channels=images.train_images.shape[1], classes=images.classes)
        return adapt_inputs(net, model, (images.mean, images.std))

    def load_examples(self, split: Split, device: str) -> ResidentImages | MappedImages | MixedImages:
        images, positions = self.loaded, self.positions(split).numpy()
        pixels, labels = images.train_images, images.train_labels
        if split == "test":
            pixels, labels = images.test_images, images.test_labels
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (images.mean, images.std))
        held = torch.from_numpy(labels[positions])
        unmixed = self.views.views if isinstance(self.views, Mixed) else self.views
        examples = make_examples(images.train_images, pixels, positions, held, unmixed, (mean, std))
        if isinstance(self.views, Mixed) and split in ("train", "train+val"):
            return MixedImages(examples, self.views, images.classes)
        return examples

    def positions(self, split: Split) -> Tensor:
        loaded = self.loaded
        pool, test, own = len(loaded.train_labels), len(loaded.test_labels), loaded.own_validation
        if own:
            ranges = {"train": (0, pool - own), "val": (pool - own, pool), "train+val": (0, pool), "test": (0, test)}
            return torch.arange(*ranges[split])
        splits = split_pool(loaded.train_labels, test, self.validation, self.split_seed, loaded.equal)
        return torch.from_numpy(splits[split])

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the untempered, unpruned logits (B, K), mean over the batch, weighted by class if asked.

        Targets are classes (B,), or of mixed images the shares of the classes (B, K).
        """
        logits = outputs.prediction.float()
        if self.class_weights is None:
            return F.cross_entropy(logits, batch.targets)
        # divided by the images and not by their weights: the mean of several workers' shards is that of the batch
        weights = _load_class_weights(self, str(logits.device))
        return F.cross_entropy(logits, batch.targets, weight=weights, reduction="none").mean()

    def weigh_classes(self) -> Tensor:
        """Return the weight of each class in the task loss, (K,) float32.

        Raises InputError for another number of weights than there are classes.
        """
        classes, weights = self.loaded.classes, self.class_weights
        if isinstance(weights, tuple):
            if len(weights) != classes:
                raise InputError(f"class_weights has {len(weights)} numbers; {self.loaded.name} has {classes} classes")
            return torch.tensor(weights, dtype=torch.float32)
        counts = np.bincount(self.loaded.train_labels[self.positions("train").numpy()], minlength=classes)
        return torch.from_numpy(counts.sum() / (classes * np.maximum(counts, 1))).float()

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """KL(teacher ‖ student) of the untempered probabilities (B, K), mean over the batch."""
        return kl_divergence(student.prediction.float(), teacher.prediction.float()).mean()

    def measure_distances(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the `teacher_distance`, and ‖z_s − z_t‖₂ of the logits (B, K), mean over the batch: (2,).

        Source of the second: P1, figure 3, which does not state if outputs are logits or probabilities.
        """
        difference = student.prediction.float() - teacher.prediction.float()
        return torch.stack([self.teacher_distance(student, teacher), difference.norm(dim=1).mean()])

    def predict_classes(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        return outputs.prediction.argmax(dim=1), batch.targets

    def meters(self, device: str, split: Split) -> ClassifierScores:
        names = [score.name for score in (self.train_scores if split == "train" else self.scores)]
        return ClassifierScores(names, self._class_names, device)

    @property
    def _class_names(self) -> tuple[str, ...]:
        """The classes' names, or else their numbers."""
        return tuple(self.loaded.class_names) or tuple(map(str, range(self.loaded.classes)))

    @property
    def capturable(self) -> bool:
        """True if training steps can be captured as a CUDA graph (training/cuda_graph.py): batches are made on the GPU.

        Of views, only crops and flips have been tried in a graph.
        """
        return not are_mapped(self.loaded.train_images) and isinstance(self.views, CropFlip)

    @property
    def output_bytes(self) -> int | None:
        return None if isinstance(self.views, Mixed) else 2 * self.loaded.classes

    def adapt_to(self, loss: DistillationLoss) -> Self:
        if isinstance(self.views, Mixed) and getattr(loss, "reads_labels", False):
            raise InputError(
                f"{type(loss).__name__} reads the class of each image, and a mixed image has several; allowed with "
                "Mixed views are KD without pruning, DIST, MLKD, TTM, CTKD, and losses on features but CRD"
            )
        return super().adapt_to(loss)

    def sample_batch(self) -> Batch:
        if not isinstance(self.views, Mixed):
            return super().sample_batch()
        two = torch.arange(2)  # mixed, so that a loss of one's own that needs a class for each image shows
        return self.examples("train", "cpu").batch(two, self.views.draw(0, 0, two))

    def check_data(self, students: tuple[ModelSpec, ...], losses: tuple[DistillationLoss, ...]) -> None:
        self.loaded.check()
        self.meters("cpu", "val")  # checks that scores fit the classes
        self._check_recalls()
        images = torch.from_numpy(np.array(self.loaded.train_images[:2]))
        views = self.views.views if isinstance(self.views, Mixed) else self.views
        views.apply(images, torch.arange(1, 1 + len(images)) % views.count)  # checks a transform of one's own
        if self.class_weights is not None:
            self.weigh_classes()  # checks their number

    def _check_recalls(self) -> None:
        """Raise InputError if the recall of a class is to be measured that has no validation or test image."""
        loaded = self.loaded
        labels = {"val": loaded.train_labels[self.positions("val").numpy()], "test": loaded.test_labels}
        for name in [name for name in self.metric_names or () if name.startswith(RECALL)]:
            number = self._class_names.index(name.removeprefix(RECALL))
            for split, found in labels.items():
                if not (found == number).any():
                    raise InputError(f"metric_names has {name!r}, but no {split} image is of that class; leave it out")

    def data_record(self) -> dict[str, Any]:
        names = self.loaded.class_names
        record = {"classes": self.loaded.classes} | ({"class_names": list(names)} if names else {})
        mixed = isinstance(self.views, Mixed)
        return record | ({"note": "training images are mixed: the teacher is run at every step"} if mixed else {})


def _are_weights(weights: Any) -> bool:
    if not isinstance(weights, tuple):
        return weights is None or (isinstance(weights, str) and weights == "balanced")
    return bool(weights) and all(is_number(one) and 0 < one < math.inf for one in weights)


@lru_cache(maxsize=2)
def _load_class_weights(task: Classification, device: str) -> Tensor:
    return task.weigh_classes().to(device)

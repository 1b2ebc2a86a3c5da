"""Image classification by the field's CIFAR protocol, on CIFAR-10, CIFAR-100 and scikit-learn's digits.

Images stay on the device as uint8, where each batch is cropped and flipped. There is no DataLoader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.task import Metric
from study.trial import Split
from trainables.data.arrays.splits import ImageSet, split_pool
from trainables.losses.common.logits import kl_divergence
from trainables.task import Batch, ModelSpec, Outputs
from trainables.tasks.base import DistillationTask
from trainables.training.recipe import Recipe
from trainables.training.views import CropFlip, normalise


@dataclass(frozen=True)
class Classification(DistillationTask[ImageSet]):
    """Train students on labelled images, score them by top-1 accuracy.

    The study's seed does not move the split, so that one teacher serves all studies of a split.
    Raises InputError for a `validation` outside (0, 1).
    """

    recipe: Recipe = field(default_factory=Recipe)
    views: CropFlip = field(default_factory=lambda: CropFlip(padding=4, flip=True))
    validation: float = 0.1
    """The share of the training images held out, stratified by class."""
    split_seed: int = 0

    scores = (Metric("accuracy", "max", "%", 2),)
    prediction = "class logits (B, K); their softmax gives probabilities"
    evaluation_batch_sizes: ClassVar = {"cpu": 64, "cuda": 1024}  # small for a core's cache, large to fill a GPU
    further_distances = (Metric("teacher_l2", "min", label="L2 distance to the teacher"),)
    capturable: ClassVar[bool] = True
    """Its training steps can be captured as a CUDA graph (training/cuda_graph.py)."""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise InputError(
                f"validation is {self.validation}; allowed is a share of the training images between 0 and 1"
            )

    def build(self, model: ModelSpec) -> nn.Module:
        return model.build(channels=self.loaded.train_images.shape[1], classes=self.loaded.classes)

    def load_examples(self, split: Split, device: str) -> ResidentImages:
        images = self.loaded
        pixels, labels = images.test_images, images.test_labels
        if split != "test":
            positions = self.positions(split).numpy()
            pixels, labels = images.train_images[positions], images.train_labels[positions]
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (images.mean, images.std))
        return ResidentImages(
            torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device), self.views, mean, std
        )

    def positions(self, split: Split) -> Tensor:
        labels = self.loaded.train_labels
        loaded = self.loaded
        splits = split_pool(labels, len(loaded.test_labels), self.validation, self.split_seed, loaded.equal)
        return torch.from_numpy(splits[split])

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Cross-entropy of the untempered, unpruned logits (B, K), mean over the batch."""
        return F.cross_entropy(outputs.prediction.float(), batch.targets)

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

    def meters(self, device: str, split: Split) -> Accuracy:
        return Accuracy(device)

    @property
    def output_bytes(self) -> int:
        return 2 * self.loaded.classes

    def data_record(self) -> dict[str, int]:
        return {"classes": self.loaded.classes}


@dataclass(frozen=True)
class ResidentImages:
    """A split as one uint8 tensor (N, C, H, W) on the device, with labels (N,) int64."""

    images: Tensor
    labels: Tensor
    views: CropFlip
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, samples: Tensor, views: Tensor) -> Batch:
        pixels = self.views.apply(self.images[samples], views)
        inputs = normalise(pixels, self.mean, self.std)
        if not inputs.is_cuda:  # on GPUs the memory format of the net's weights decides
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return Batch(inputs, self.labels[samples], samples, views)


class Accuracy:
    """Top-1 accuracy over all samples (micro average), a share in [0, 1].

    Counts in place, unlike torchmetrics' meters, so that a replayed CUDA graph adds to the same numbers.
    """

    def __init__(self, device: str):
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        """Correct predictions, and samples."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        correct = outputs.prediction.detach().argmax(1) == batch.targets
        self._counts.add_(torch.stack([correct.sum(), torch.ones_like(correct).sum()]))

    def compute(self) -> dict[str, float]:
        counts = self._counts.clone()
        if dist.is_initialized():
            dist.all_reduce(counts)
        correct, samples = counts.float()
        return {"accuracy": float(correct / samples)}

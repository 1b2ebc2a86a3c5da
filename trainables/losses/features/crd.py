"""CRD: embeddings of a sample by both nets attract each other, and repel those of samples of other classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from trainables.losses.common.feature_maps import embed_features
from trainables.losses.common.logits import autocast_disabled
from trainables.losses.common.sample_memory import SampleMemory
from trainables.losses.state import LearnedPart, LossState, StatefulLoss
from trainables.task import Outputs
from trainables.training.recipe import Sgd
from trainables.training.schedules import MultiStep
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at


@dataclass(frozen=True)
class CRD(StatefulLoss):
    """weight · mean over the batch of −Σ over both nets of [log h(e, m⁺) + Σ over K negatives of log(1 − h(e, m⁻))].

    e: embedding of a sample by one net, its last features (maps averaged over their pixels) through a linear layer of
    `dimensions`, normalised; m: embeddings by the other net from a memory of all training samples, m⁺ of the same
    sample, m⁻ of K = `negatives` samples of other classes. h = x/(x + K·Z), x = exp(e·m/τ), τ the temperature,
    Z = exp(1/(2·dimensions·τ²)), the mean of x over random directions. Both linear layers learn.
    The authors fill their memory with noise and take Z from its first batch, which gives this Z; here a sample enters
    the memory when it is first seen, is its own m⁺ until then, and the first batch has no negatives. The memory of N
    samples takes 8·N·dimensions bytes in every checkpoint.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Tian et al. 2020, Contrastive Representation Distillation, equations 17 to 19, with the settings of its code
    on CIFAR-100. `learning_rate` does not follow that of the recipe: set it alike.
    """

    student_channels: int = 64
    teacher_channels: int = 64
    weight: FloatOrSchedule = 0.8
    temperature: FloatOrSchedule = 0.07
    negatives: int = 16384
    dimensions: int = 128
    momentum: FloatOrSchedule = 0.5
    """Share of the old embedding in the memory that stays when its sample is seen again."""
    learning_rate: FloatOrSchedule = field(default_factory=lambda: MultiStep(0.05))
    """Learning rate of the linear layers."""
    optimizer: Sgd = field(default_factory=Sgd)
    task_weight: FloatOrSchedule = 1.0

    compares_classes: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("student_channels", "teacher_channels", "negatives", "dimensions"):
            check_range(name, getattr(self, name), low=1)
        for name in ("weight", "learning_rate", "task_weight"):
            check_range(name, getattr(self, name), low=0)
        check_range("temperature", self.temperature, above=0)
        check_range("momentum", self.momentum, low=0, below=1)
        check_type("optimizer", self.optimizer, Sgd, "Sgd(…)")

    def new_state(self, device: str) -> CRDState:
        return CRDState(self, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss () of a first batch, for checks before a study starts."""
        numbered = replace(student, samples=torch.arange(len(student.prediction), device=student.prediction.device))
        return super().__call__(numbered, teacher, targets, progress)


class CRDState(LossState):
    """Per-training state: the linear layers with their optimizer, and the memory."""

    parts: ClassVar[tuple[str, ...]] = ("heads", "memory")

    def __init__(self, loss: CRD, device: str) -> None:
        self.loss = loss
        widths = loss.student_channels, loss.teacher_channels
        heads = nn.ModuleList(nn.Linear(width, loss.dimensions) for width in widths)
        self.heads = LearnedPart(heads, loss.optimizer, loss.learning_rate, device)
        self.memory = SampleMemory(loss.dimensions, device)
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None
        """Samples (B,), classes (B,) and embeddings (2, B, D) of the batch, for the memory."""

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given features (B, D) or (B, C, H, W), the student's samples (B,) and classes (B,).

        Raises InputError for nets without features, or features of another width.
        """
        if student.samples is None:
            raise InputError("CRD keeps a memory by sample; the student's outputs have no samples")
        with autocast_disabled(student):
            embedded = self._embed(student, teacher)  # (2, B, D)
            self._batch = student.samples, targets, embedded.detach()
            temperature = value_at(self.loss.temperature, progress)
            positives = self.memory.recall(student.samples, embedded.detach()).flip(0)  # each net's are the other's
            attraction = F.softplus(self._log_noise(temperature) - (embedded * positives).sum(dim=2) / temperature)
            repulsion = self._compute_repulsion(embedded, targets, temperature)
            return value_at(self.loss.weight, progress) * (attraction + repulsion).sum(dim=0).mean()

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        """Take a step of the linear layers, then write the embeddings of the batch into the memory."""
        self.heads.step(progress)
        if self._batch is not None:
            self.memory.update(*self._batch, value_at(self.loss.momentum, progress), is_growing=progress.epoch == 0)
            self._batch = None

    def _embed(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the normalised embeddings of both nets, (2, B, D)."""
        features = embed_features("CRD", student), embed_features("CRD", teacher).detach()
        for name, one in zip(("student_channels", "teacher_channels"), features, strict=True):
            if one.shape[1] != getattr(self.loss, name):
                raise InputError(f"CRD on features of {one.shape[1]} channels: give {name}={one.shape[1]}")
        pairs = zip(self.heads.net, features, strict=True)
        return torch.stack([F.normalize(head(one), dim=1) for head, one in pairs])

    def _compute_repulsion(self, embedded: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Return −Σ log(1 − h) over the negatives of each net and sample: (2, B, D) → (2, B)."""
        if not len(self.memory):
            return torch.zeros_like(embedded[..., 0])
        negatives, exist = self.memory.draw_others(targets, self.loss.negatives)  # (B, K), (B, 1)
        # all similarities, then the drawn ones: the drawn vectors themselves would be K·D numbers a sample
        vectors = self.memory.vectors.flip(0).to(embedded.dtype)
        similarity = embedded @ vectors.transpose(1, 2)  # (2, B, N)
        drawn = similarity.gather(2, negatives.expand(2, -1, -1)) / temperature
        return (F.softplus(drawn - self._log_noise(temperature)) * exist).sum(dim=2)

    def _log_noise(self, temperature: float) -> float:
        """Return log(K·Z)."""
        return math.log(self.loss.negatives) + 1 / (2 * self.loss.dimensions * temperature**2)

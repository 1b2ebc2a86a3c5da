"""Shared parts of losses on logits: add-ons, precision, selection of classes, and the KL divergence.

A temperature is a float or one number per sample, (B, 1); all other values per sample have that shape, too.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.pruning import select_kept_classes
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, check_type, value_at

EPSILON = 1e-7
"""Added to the standard deviation, so that equal logits become zeros instead of NaN; the value of the paper's code."""


class LogitLoss:
    """Base of the losses on selected logits: the settings that all of them have, with defaults of their own.

    Raises InputError for a setting, or an end of a schedule, out of range.
    """

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    temperature: FloatOrSchedule
    pruning: FloatOrSchedule
    """Share of the classes that is pruned, those with the teacher's lowest logits (pruning.py)."""
    standardise: bool
    """Whether logits are standardised over the kept classes."""
    adaptive: DataAdaptiveTemperature | None
    """Temperatures of single samples (adaptive_temperature.py); None for one temperature for all."""
    task_weight: FloatOrSchedule

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, above=0)
        check_range("pruning", self.pruning, low=0, below=1)
        check_range("task_weight", self.task_weight, low=0)
        check_type("standardise", self.standardise, bool, "True, False, or choice(False, True)")
        allowed = "None, or DataAdaptiveTemperature(…) of numbers"
        check_type("adaptive", self.adaptive, DataAdaptiveTemperature | None, allowed)


def select_logits(
    loss: LogitLoss, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, float | Tensor]:
    """Return both nets' logits as `loss` compares them, the target in column 0, and their temperature.

    Logits (B, K) are pruned, then standardised over the kept classes: (B, 1 + M), float32 or wider. The temperature
    is a float, or (B, 1) if it adapts to the data, ranked by the KL of exactly these logits. The teacher's logits and
    the temperature carry no gradient.
    """
    logits = gather_kept_logits(student, teacher, targets, value_at(loss.pruning, progress))
    if loss.standardise:
        logits = standardise(logits[0]), standardise(logits[1])
    temperature = value_at(loss.temperature, progress)
    if loss.adaptive is None:
        return *logits, temperature
    ranked_at = temperature if loss.adaptive.ranked_at is None else value_at(loss.adaptive.ranked_at, progress)
    with torch.no_grad():
        divergence = kl_divergence(logits[0] / ranked_at, logits[1] / ranked_at)
    return *logits, loss.adaptive.temperatures(divergence, temperature, progress)


def autocast_disabled(outputs: Outputs) -> torch.autocast:
    """Return a context without autocast on the device of `outputs`: losses are computed in float32 or wider."""
    return torch.autocast(outputs.prediction.device.type, enabled=False)


def gather_kept_logits(student: Outputs, teacher: Outputs, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return both nets' logits over the classes that logits pruning keeps, the target in column 0.

    Logits (B, K), targets (B,) → (B, 1 + M) twice, float32 or wider; the teacher's are detached. With the shares of
    classes in mixed images as targets (B, K), all logits in their order.
    Raises InputError for fewer than 2 classes.
    """
    if targets.dim() == 2:
        return get_logits(student, teacher)
    kept = torch.cat((targets[:, None], select_kept_classes(teacher.prediction, targets, share)), dim=1)
    return as_float32(student.prediction).gather(1, kept), as_float32(teacher.prediction.detach()).gather(1, kept)


def get_logits(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Return both nets' logits (B, K), float32 or wider; the teacher's are detached.

    Raises InputError for fewer than 2 classes.
    """
    if student.prediction.shape[1] < 2:
        raise InputError("logits of 1 class; allowed are 2 or more for distillation: use NoDistillation")
    return as_float32(student.prediction), as_float32(teacher.prediction.detach())


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(softmax(teacher) ‖ softmax(student)) of each sample, or pixel: logits (B, M, …) → (B, 1, …)."""
    return kl_divergence_from_logs(F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1))


def kl_divergence_from_logs(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(exp(teacher) ‖ exp(student)) of each sample, or pixel: log-probabilities (B, M, …) → (B, 1, …)."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1, keepdim=True)


def as_float32(values: Tensor) -> Tensor:
    """Return a tensor in float32, or unchanged if its type is wider."""
    return values.float() if values.element_size() < 4 else values


def standardise(logits: Tensor) -> Tensor:
    """Return (z − mean)/(std + 1e-7) over the classes of each sample: (B, M) → (B, M), M ≥ 2.

    The std is unbiased: it divides by M − 1. Gradients flow through it, as in the paper's code.
    Source: Sun et al. 2024, algorithm 1, with the unbiased std of its code.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    # unlike torch.std's, the gradient is 0 where the result is 0
    norm: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / (norm / math.sqrt(logits.shape[1] - 1) + EPSILON)

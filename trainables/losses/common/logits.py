"""What all losses on logits share: their add-ons, precision, the classes that count, the divergence itself.

Temperatures are a float or one per sample, (B, 1); therefore what is per sample here is (B, 1) too.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.pruning import select_kept_classes
from trainables.losses.common.standardisation import standardise
from trainables.task import Outputs
from trainables.training.schedules import FloatOrSchedule, Progress, check_range, is_unresolved, value_at


class LogitLoss(Protocol):
    """The settings that every loss on logits has, whatever it computes."""

    @property
    def temperature(self) -> FloatOrSchedule: ...

    @property
    def pruning(self) -> FloatOrSchedule:
        """Share of the classes that is pruned (pruning.py)."""

    @property
    def standardise(self) -> bool:
        """Whether logits are standardised over the kept classes (standardisation.py)."""

    @property
    def adaptive(self) -> DataAdaptiveTemperature | None:
        """Which samples depart from the temperature (adaptive_temperature.py)."""

    @property
    def task_weight(self) -> FloatOrSchedule: ...


def check_logit_loss(loss: LogitLoss) -> None:
    """Raises InputError for one of these settings, or an end of a schedule, out of range."""
    check_range("temperature", loss.temperature, above=0)
    check_range("pruning", loss.pruning, low=0, below=1)
    check_range("task_weight", loss.task_weight, low=0)
    check_type("standardise", loss.standardise, bool, "True, False, or choice(False, True)")
    check_type(
        "adaptive", loss.adaptive, DataAdaptiveTemperature | None, "None, or DataAdaptiveTemperature(…) of numbers"
    )


def select_logits(
    loss: LogitLoss, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, float | Tensor]:
    """Both nets' logits as `loss` compares them, the target in column 0, and the temperature to compare them at.

    Logits (B, K) are pruned, then standardised over the classes that are left: (B, 1 + M), float32 or wider. The
    temperature is a float, or (B, 1) where it adapts to the data, ranked by KL of exactly these logits. Nothing of the
    teacher carries a gradient, nor does the temperature.
    """
    logits = gather_kept_logits(student, teacher, targets, value_at(loss.pruning, progress))
    if loss.standardise:
        logits = standardise(logits[0]), standardise(logits[1])
    temperature = value_at(loss.temperature, progress)
    if loss.adaptive is None:
        return *logits, temperature
    ranked_at = temperature if loss.adaptive.ranked_at is None else value_at(loss.adaptive.ranked_at, progress)
    with torch.no_grad():
        apart = kl_divergence(logits[0] / ranked_at, logits[1] / ranked_at)
    return *logits, loss.adaptive.temperatures(apart, temperature, progress)


def autocast_disabled(outputs: Outputs) -> torch.autocast:
    """A context without autocast on the device of `outputs`: losses are computed in float32 or wider."""
    return torch.autocast(outputs.prediction.device.type, enabled=False)


def gather_kept_logits(student: Outputs, teacher: Outputs, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Both nets' logits over the classes that logits pruning keeps, the target in column 0.

    Logits (B, K) become (B, 1 + M), float32 or wider; the teacher's carry no gradient.
    Raises InputError for fewer than 3 classes.
    """
    kept = torch.cat((targets[:, None], select_kept_classes(teacher.prediction, targets, share)), dim=1)
    return as_float32(student.prediction).gather(1, kept), as_float32(teacher.prediction.detach()).gather(1, kept)


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) of each sample, or pixel: logits (B, M, …) → (B, 1, …)."""
    return kl_divergence_from_logs(F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1))


def kl_divergence_from_logs(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(exp(teacher) ‖ exp(student)) of each sample, or pixel, from log-probabilities: (B, M, …) → (B, 1, …)."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1, keepdim=True)


def as_float32(logits: Tensor) -> Tensor:
    """Logits in float32, or as they are if that is wider."""
    return logits.float() if logits.element_size() < 4 else logits


def check_type(name: str, value: Any, kinds: Any, allowed: str) -> None:
    """Raises InputError unless `value` is of these kinds, or a domain of which the engine resolves what is."""
    if not is_unresolved(value) and not isinstance(value, kinds):
        raise InputError(f"{name} is {value!r}; allowed is {allowed}")

"""DKD: KD decoupled into a term on the target class and a term among the non-target classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.logits import (
    LogitLoss,
    autocast_disabled,
    kl_divergence,
    kl_divergence_from_logs,
    select_logits,
)
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at, warmup_factor


@dataclass(frozen=True)
class DKD(LogitLoss):
    """min((epoch + 1)/(warmup·epochs), 1) · mean over the batch of T²·(alpha·TCKD + beta·NCKD).

    TCKD compares the probabilities of target and non-target, NCKD the probabilities among the non-target classes
    (`tckd_nckd`), both over the classes that pruning keeps. Logits are (B, K), K ≥ 3; `epoch` counts from 0.
    beta = 2 is published for ResNet-110 teachers of ResNet-20 and 32; other pairs use 6 to 8. The published warm-up
    is 20 of 240 epochs; the default is the same share of any run. With `standardise`, T = 2 and nine times alpha and
    beta are usual.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Zhao et al. 2022, eq. 7; `pruning` and `adaptive` are P1's, `standardise` Sun et al. 2024.
    """

    temperature: FloatOrSchedule = 4.0
    alpha: FloatOrSchedule = 1.0
    beta: FloatOrSchedule = 2.0
    warmup: FloatOrSchedule = 20 / 240
    """Share of the run in which the loss grows to its full weight."""
    pruning: FloatOrSchedule = 0.0
    """Share of the classes that is pruned, those with the teacher's lowest logits."""
    standardise: bool = False
    adaptive: DataAdaptiveTemperature | None = None
    task_weight: FloatOrSchedule = 1.0

    reads_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, low=0)
        check_range("beta", self.beta, low=0)
        check_range("warmup", self.warmup, low=0, high=1)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K) and targets (B,) int64."""
        with autocast_disabled(student):
            tckd, nckd = tckd_nckd(*select_logits(self, student, teacher, targets, progress))
            loss = value_at(self.alpha, progress) * tckd + value_at(self.beta, progress) * nckd
            return warmup_factor(self.warmup, progress) * loss.mean()


def tckd_nckd(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return T²·TCKD and T²·NCKD of each sample: logits (B, M), the target in column 0 → (B, 1), (B, 1).

    TCKD = KL(b_t ‖ b_s), b = (p_y, 1 − p_y); NCKD = KL(q_t ‖ q_s), q the softmax over the non-target classes;
    KL of KD = TCKD + (1 − p_t,y)·NCKD. `temperature` is a float or (B, 1).
    Source: Zhao et al. 2022, eq. 5 and 6; computed in log space, so that finite logits give finite values.
    """
    student, teacher = student / temperature, teacher / temperature
    tckd = kl_divergence_from_logs(_log_binary(student), _log_binary(teacher))
    nckd = kl_divergence(student[:, 1:], teacher[:, 1:])
    return temperature**2 * tckd, temperature**2 * nckd


def _log_binary(logits: Tensor) -> Tensor:
    """Return log p_y = −softplus(d) and log(1 − p_y) = −softplus(−d), d = logsumexp(non-target) − z_y: (B, 2)."""
    gap = logits[:, 1:].logsumexp(dim=1, keepdim=True) - logits[:, :1]
    # logsigmoid(x) is −softplus(−x) to the last digit; torch's softplus is linear above 20, an error of 2e-9
    return torch.cat((F.logsigmoid(-gap), F.logsigmoid(gap)), dim=1)

"""KD: the student matches the teacher's tempered class probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.logits import LogitLoss, autocast_disabled, kl_divergence, select_logits
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class KD(LogitLoss):
    """weight · mean over the batch of T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)), over the classes that pruning keeps.

    z: logits (B, K) of teacher and student, K ≥ 3; T: temperature. The defaults are the usual ones on
    CIFAR-100: 0.1·task_loss + 0.9·KD at T = 4; with `standardise` the usual ones are weight 9 and T = 2.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Hinton et al. 2015, section 2; `pruning` and `adaptive` are P1's, `standardise` Sun et al. 2024.
    """

    temperature: FloatOrSchedule = 4.0
    weight: FloatOrSchedule = 0.9
    task_weight: FloatOrSchedule = 0.1
    pruning: FloatOrSchedule = 0.0
    """Share of the classes that is pruned, those with the teacher's lowest logits."""
    standardise: bool = False
    adaptive: DataAdaptiveTemperature | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("weight", self.weight, low=0)

    @property
    def reads_labels(self) -> bool:
        """True with pruning, which keeps the class of each sample."""
        return self.pruning != 0

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K) and targets (B,) int64."""
        with autocast_disabled(student):
            logits_and_temperature = select_logits(self, student, teacher, targets, progress)
            return value_at(self.weight, progress) * kd(*logits_and_temperature).mean()


def kd(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """Return T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)) of each sample, or pixel: logits (B, M, …) → (B, 1, …).

    The factor T² keeps the size of the gradient as T changes. `temperature` is a float or (B, 1, …).
    """
    return temperature**2 * kl_divergence(student / temperature, teacher / temperature)

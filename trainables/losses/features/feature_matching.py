"""Feature matching, the plain form of feature distillation: the student's last features approach the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from trainables.losses.common.feature_maps import Adapter, AdapterState, match_features
from trainables.losses.common.image_distance import NORMS, pixel_error
from trainables.losses.common.logits import autocast_disabled
from trainables.losses.state import LossState, StatefulLoss
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_choice, check_range, check_type, value_at


@dataclass(frozen=True)
class FeatureMatching(StatefulLoss):
    """weight · mean |F_s − F_t|, or another `norm`, F the last features (B, C, H, W) of the nets.

    The control of `AdversarialFeatures`, which compares a discriminator's judgements of the same features.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Romero et al. 2015, equation 3, for squared differences and an adapter.
    """

    weight: FloatOrSchedule = 1.0
    norm: str = "l1"
    """"l1", "mse", or "l2norm": see `pixel_error` in common/image_distance.py."""
    adapter: Adapter | None = None
    """Required for nets of different width."""
    task_weight: FloatOrSchedule = 1.0

    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)
        check_choice("norm", self.norm, NORMS)
        check_type("adapter", self.adapter, Adapter | None, "None, or Adapter(…) of numbers")

    def new_state(self, device: str) -> FeatureMatchingState:
        return FeatureMatchingState(self, device)


class FeatureMatchingState(LossState):
    """Per-training state: the adapter and its optimizer."""

    parts: ClassVar[tuple[str, ...]] = ("adapter",)

    def __init__(self, loss: FeatureMatching, device: str) -> None:
        self.loss = loss
        self.adapter = AdapterState(loss.adapter, device)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given features (B, C, H, W)."""
        with autocast_disabled(student):
            f_s, f_t = match_features("FeatureMatching", self.adapter, student, teacher)
            return value_at(self.loss.weight, progress) * pixel_error(self.loss.norm, f_s, f_t)

    def step(self, student: Outputs, teacher: Outputs, progress: Progress) -> None:
        self.adapter.step(progress)

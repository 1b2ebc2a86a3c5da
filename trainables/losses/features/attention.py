"""Attention transfer: the student's feature maps are large at the places where the teacher's are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from study.errors import InputError
from trainables.losses.common.feature_maps import list_taps
from trainables.losses.common.logits import as_float32, autocast_disabled
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class AttentionTransfer:
    """weight · Σ over pairs of taps of mean (Q_s − Q_t)², the mean over batch and places.

    Q: the map mean over channels of F², (B, H·W), divided by its L2 norm; F: features (B, C, H, W), of any C. The taps
    of both nets are paired in their order; the larger map of a pair is averaged to the size of the smaller.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Zagoruyko & Komodakis 2017, with p = 2; mean and weight are those of mdistiller's tables on CIFAR-100.
    """

    weight: FloatOrSchedule = 1000.0
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    reads_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("weight", self.weight, low=0)
        check_range("task_weight", self.task_weight, low=0)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Any, progress: Progress) -> Tensor:
        """Return the loss (), given features (B, C, H, W) of both nets' taps.

        Raises InputError for nets without features, another number of taps, or features that are no maps.
        """
        with autocast_disabled(student):
            maps_s, maps_t = _list_maps(student), _list_maps(teacher)
            if len(maps_s) != len(maps_t) or not maps_s:
                raise InputError(
                    f"AttentionTransfer compares as many taps of both nets; the student returns {len(maps_s)}, the "
                    f"teacher {len(maps_t)}: give both taps=(…) of one length"
                )
            total = student.prediction.new_zeros(()).to(as_float32(student.prediction).dtype)
            for f_s, f_t in zip(maps_s, maps_t, strict=True):
                size = min(f_s.shape[2], f_t.shape[2]), min(f_s.shape[3], f_t.shape[3])
                difference = _attention(f_s, size) - _attention(f_t.detach(), size)  # (B, H·W)
                total = total + difference.square().mean()
            return value_at(self.weight, progress) * total


def _list_maps(outputs: Outputs) -> list[Tensor]:
    """Return the features (B, C, H, W) of all taps, in their order; `LAST` counts where it is alone."""
    maps = list_taps(outputs)
    if flat := [features for features in maps if features.dim() != 4]:
        raise InputError(f"AttentionTransfer of features {tuple(flat[0].shape)}; allowed are maps (B, C, H, W)")
    return maps


def _attention(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the normalised map of activations, (B, C, H, W) → (B, size[0]·size[1])."""
    pooled = F.adaptive_avg_pool2d(features, size)
    return F.normalize(pooled.square().mean(dim=1).flatten(1), dim=1)

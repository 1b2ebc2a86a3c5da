"""Data-adaptive temperature (DAT): another temperature for the samples on which the nets differ most, or least.

logits.py computes the divergence that ranks the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.training.settings import FloatOrSchedule, Progress, check_range, value_at


@dataclass(frozen=True)
class DataAdaptiveTemperature:
    """T·(1 + upper_change) for the upper share of a batch, T·(1 + lower_change) for the lower share, T for the rest.

    The defaults are the published values; opposite signs reverse the rule, and a change of 0 keeps T. The shares never
    overlap, since each is at most half the batch.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P1, which defines neither the divergence that ranks the samples, nor its temperature, nor the rounding; read
    here as the KL of the tempered softmaxes under any base loss, at `ranked_at`, rounded down.
    """

    upper_fraction: FloatOrSchedule = 0.1
    lower_fraction: FloatOrSchedule = 0.1
    upper_change: FloatOrSchedule = 0.05
    lower_change: FloatOrSchedule = -0.05
    ranked_at: FloatOrSchedule | None = None
    """The temperature of the divergence that ranks the samples; None is the loss's own temperature."""

    def __post_init__(self) -> None:
        check_range("upper_fraction", self.upper_fraction, low=0, high=0.5)
        check_range("lower_fraction", self.lower_fraction, low=0, high=0.5)
        check_range("upper_change", self.upper_change, above=-1)
        check_range("lower_change", self.lower_change, above=-1)
        if self.ranked_at is not None:
            check_range("ranked_at", self.ranked_at, above=0)

    def single_worker_reason(self) -> str:
        return "its adaptive temperature ranks the samples of a whole batch, and each worker has only its shard"

    def temperatures(self, divergence: Tensor, temperature: float, progress: Progress) -> Tensor:
        """Return each sample's temperature, given the divergence of the nets on it: (B, 1) → (B, 1).

        Each share has ⌊fraction·B⌋ samples; among equal divergences the later in the batch ranks higher, so the order
        of the batch matters where equals lie across the edge of a share. No step waits for the device.
        """
        batch = len(divergence)
        upper, lower = (
            _count(value_at(share, progress), batch) for share in (self.upper_fraction, self.lower_fraction)
        )
        # By rank first, then scattered to the samples: sizes and values do not depend on the data. A quantile would
        # pick none or all of a batch of ties.
        by_rank = torch.full_like(divergence, temperature)
        by_rank[:lower] = temperature * (1 + value_at(self.lower_change, progress))
        by_rank[batch - upper :] = temperature * (1 + value_at(self.upper_change, progress))
        order = divergence.sort(dim=0, stable=True).indices
        return torch.empty_like(by_rank).scatter(0, order, by_rank)


def _count(share: float, batch: int) -> int:
    # 0.29 · 100 is 28.999999999999996: without the addend one sample too few would count
    return math.floor(share * batch + 1e-9)

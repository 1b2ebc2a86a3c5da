"""Data-adaptive temperature (DAT): samples on which the nets differ most, or least, get a temperature of their own.

Which divergence ranks the samples is decided where the logits are compared, in logits.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.training.schedules import Number, Progress, check_range, value_at


@dataclass(frozen=True)
class DataAdaptiveTemperature:
    """T·(1 + upper_change) for the top share of a batch, T·(1 + lower_change) for the bottom one, T for the rest.

    The defaults are the published ones; changes of the opposite signs reverse the rule, and a change of 0 leaves T.
    The two shares never meet, since neither exceeds half the batch.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P1. It does not say which divergence ranks the samples, at which temperature, or how to round; read here as
    the plain KL of the tempered softmaxes under any base loss, at `ranked_at`, rounded down.
    """

    upper_fraction: Number = 0.1
    lower_fraction: Number = 0.1
    upper_change: Number = 0.05
    lower_change: Number = -0.05
    ranked_at: Number | None = None
    """The temperature at which the nets are compared to rank the samples; None is the epoch's own."""

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
        """The temperature of each sample, given how far the nets are apart on it: (B, 1) → (B, 1).

        ⌊fraction·B⌋ samples are in each share; of equal ones the later in the batch ranks higher. Where equal ones lie
        across the edge of a share, the order of the batch therefore matters. No step waits for the device.
        """
        batch = len(divergence)
        upper, lower = (
            _count(value_at(share, progress), batch) for share in (self.upper_fraction, self.lower_fraction)
        )
        # By rank first, then to each rank's sample: sizes and values are known without looking at the data. A quantile
        # would pick none or all of a batch of ties.
        by_rank = torch.full_like(divergence, temperature)
        by_rank[:lower] = temperature * (1 + value_at(self.lower_change, progress))
        by_rank[batch - upper :] = temperature * (1 + value_at(self.upper_change, progress))
        order = divergence.sort(dim=0, stable=True).indices
        return torch.empty_like(by_rank).scatter(0, order, by_rank)


def _count(share: float, batch: int) -> int:
    # 0.29 · 100 is 28.999999999999996: without the addend one sample fewer than asked for would count.
    return math.floor(share * batch + 1e-9)

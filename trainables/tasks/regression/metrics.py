"""Scores of predicted numbers and points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from study.task import Metric
from trainables.data.arrays.image_targets import TargetTable
from trainables.task import Batch, Outputs


def define_scores(table: TargetTable) -> tuple[Metric, ...]:
    """Return the scores over all numbers or points, and of each where there are several."""
    names = table.names if len(table) > 1 else ()
    if table.are_points:
        of_each = (Metric(f"distance_{name}", "min", "%", 2, label=f"distance of {name}") for name in names)
        return (Metric("distance", "min", "%", 2, label="distance of the points"), *of_each)
    of_each = (Metric(f"mae_{name}", "min", label=f"MAE of {name}") for name in names)
    return (Metric("mae", "min", label="MAE"), Metric("rmse", "min", label="RMSE"), *of_each)


class RegressionScores:
    """Errors over all images of a split, given predictions and targets (B, M) divided by `scale` (M,).

    Of numbers, in their own units: `mae` is the mean of |e|, `rmse` √(mean e²), both over all numbers; `mae_…` that of
    one number. Of points: `distance` is the mean distance of predicted and true points, as a share of the image's side,
    `distance_…` that of one point.
    """

    def __init__(self, table: TargetTable, scale: Sequence[float], device: str):
        self._table, self._scale = table, torch.tensor(scale, device=device)
        self._sums = torch.zeros(2, len(table), dtype=torch.float64, device=device)
        """Sums of errors and of squared errors, of each number or point."""
        self._count = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        errors = (outputs.prediction.detach().float() - batch.targets) * self._scale  # (B, M)
        if self._table.are_points:
            errors = errors.view(len(errors), -1, 2).norm(dim=2) / 2  # (B, P); a side is from −1 to 1
        self._sums += torch.stack([errors.abs().sum(dim=0), errors.square().sum(dim=0)]).double()
        self._count += len(errors)

    def compute(self) -> dict[str, float]:
        sums: Tensor = torch.cat([self._sums.flatten(), self._count[None]])
        if dist.is_initialized():
            dist.all_reduce(sums)
        means = (sums[:-1] / sums[-1]).view(2, -1)
        name = "distance" if self._table.are_points else "mae"
        scores = {name: float(means[0].mean())}
        if not self._table.are_points:
            scores["rmse"] = float(means[1].mean().sqrt())
        each = zip(self._table.names, means[0].tolist(), strict=True) if len(self._table) > 1 else ()
        return scores | {f"{name}_{each_name}": value for each_name, value in each}

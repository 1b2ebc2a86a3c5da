"""Scores of counts, and pictures of density maps."""

from __future__ import annotations

from torch import Tensor

from study.task import Metric
from trainables.task import Batch, Outputs, Panel

COUNT_ERRORS = (Metric("mae", "min", digits=2, label="MAE"), Metric("rmse", "min", digits=2, label="RMSE"))


class CountErrors:
    """Errors of the count, which is the sum of the predicted map: MAE = mean |e|, RMSE = √(mean e²), in people.

    The literature on crowds calls RMSE "MSE".
    """

    def __init__(self, density_scale: float, device: str):
        # imported late: it takes seconds, which a driver that only checks the data need not wait for
        from torchmetrics import MeanAbsoluteError, MeanSquaredError

        self._scale = density_scale
        self._mae, self._rmse = MeanAbsoluteError().to(device), MeanSquaredError(squared=False).to(device)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        counts = outputs.prediction.detach().float().sum(dim=(1, 2, 3)) / self._scale  # (B,)
        self._mae.update(counts, batch.targets.counts)
        self._rmse.update(counts, batch.targets.counts)

    def compute(self) -> dict[str, float]:
        return {"mae": float(self._mae.compute()), "rmse": float(self._rmse.compute())}


def draw_density_panels(outputs: Outputs, batch: Batch, images: Tensor, density_scale: float) -> list[Panel]:
    """Return panels of one image (1, 3, H, W) uint8: the image, its true map and the predicted one, with counts."""

    def draw_map(name: str, density: Tensor, count: str, given: bool) -> Panel:
        # maps of all resolutions in one unit
        covered = (images.shape[3] / density.shape[3]) ** 2
        people = density[0, 0].float() / density_scale / covered
        return Panel(name, "map", people, f"{count} people", given, scale="people per pixel of the image")

    predicted = outputs.prediction
    return [
        Panel("image", "image", images[0], given=True),
        draw_map("true density", batch.targets.density, f"{batch.targets.counts[0]:.0f}", given=True),
        draw_map("predicted density", predicted, f"{predicted.float().sum() / density_scale:.1f}", given=False),
    ]

"""Regression: nets predict numbers, or the places of points, from an image.

Numbers are learned standardised, by their mean and deviation over the training images, and points from −1 at an image's
left and upper edge to 1; scores are in the numbers' own units, and in shares of the image's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.task import Metric
from study.trial import Split
from trainables.data.arrays.image_targets import TargetSet, TargetTable
from trainables.models.hooks import adapt_inputs
from trainables.task import Batch, DistillationLoss, ModelSpec, Outputs
from trainables.tasks.base import DistillationTask
from trainables.tasks.classification.examples import MappedImages, ResidentImages, make_examples
from trainables.tasks.regression.examples import ImagesWithPoints
from trainables.tasks.regression.metrics import RegressionScores, define_scores
from trainables.training.mixing import ImageViews
from trainables.training.settings import check_choice
from trainables.training.views import CropFlip

ERRORS = {"mse": F.mse_loss, "mae": F.l1_loss}


@dataclass(frozen=True)
class Regression(DistillationTask[TargetSet]):
    """Train students on images with numbers or points, score them by MAE and RMSE, or by the distance of points.

    A net has one output for each number, two for each point; nets are built with their count as the number of classes.
    The data's settings have a `target_table`: the names of the numbers or points. Data of your own need one, and a
    `load` that returns a TargetSet.
    Raises InputError for another `error`, and for views that move points, unless they are crops and flips.
    """

    views: ImageViews = field(default_factory=lambda: CropFlip(padding=0, flip=False))
    """By default images stay as they are: a mirror image may have other numbers."""
    error: Literal["mse", "mae"] = "mse"
    """The task loss: mean squared or mean absolute error of the standardised numbers, or of the points."""

    dataset_type: ClassVar = TargetSet
    allowed_data: ClassVar = "ImageNumbers, ImagePoints"
    evaluation_batch_sizes: ClassVar = {"cpu": 64, "cuda": 1024}

    prediction = (
        "numbers (B, M), standardised, or x and y of points in [−1, 1]; each times its scale plus its offset is in "
        "its own unit, or in pixels"
    )

    def __post_init__(self) -> None:
        check_choice("error", self.error, ERRORS)

    @property
    def target_table(self) -> TargetTable:
        """The numbers or points of the data. Raises InputError for data without them."""
        return self.get_table("target_table", TargetTable)

    @property
    def scores(self) -> Sequence[Metric]:
        return define_scores(self.target_table)

    def adapt_to(self, loss: DistillationLoss) -> Self:
        if getattr(loss, "compares_classes", False):
            raise InputError(
                f"{type(loss).__name__} compares classes, which a regression does not have; allowed are "
                "PredictionMatching, FeatureMatching and other losses on features, and losses of your own"
            )
        return super().adapt_to(loss)

    def build(self, model: ModelSpec) -> nn.Module:
        images = self.loaded
        net = model.build(channels=images.samples.images.shape[1], classes=len(self.target_table.outputs))
        return adapt_inputs(net, model, (images.mean, images.std))

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        outputs = super().outputs(net, batch)
        wanted = len(self.target_table.outputs)
        if not isinstance(outputs.prediction, Tensor) or outputs.prediction.shape[1:] != (wanted,):
            given = getattr(outputs.prediction, "shape", None)
            raise InputError(
                f"a net returns {type(outputs.prediction).__name__ if given is None else tuple(given)} for images "
                f"{tuple(batch.inputs.shape)}; needed are numbers (B, {wanted})"
            )
        return outputs

    def load_examples(self, split: Split, device: str) -> ResidentImages | MappedImages | ImagesWithPoints:
        loaded, table = self.loaded, self.target_table
        scale, offset = (torch.tensor(values, dtype=torch.float64) for values in (loaded.scale, loaded.offset))
        positions = torch.arange(*loaded.bounds(split)).numpy()
        targets = ((torch.from_numpy(loaded.samples.targets[positions]).double() - offset) / scale).float()
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (loaded.mean, loaded.std))
        pixels = loaded.samples.images
        images = make_examples(pixels, pixels, positions, targets, self.views, (mean, std))
        if not table.are_points:
            return images
        assert isinstance(self.views, CropFlip)
        return ImagesWithPoints(images, self.views, torch.tensor(table.mirror(), device=device))

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*self.loaded.bounds(split))

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Mean squared or mean absolute error of the predictions (B, M), by `error`."""
        return ERRORS[self.error](outputs.prediction.float(), batch.targets)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared difference of the predictions (B, M)."""
        return F.mse_loss(student.prediction.float(), teacher.prediction.float())

    def meters(self, device: str, split: Split) -> RegressionScores:
        return RegressionScores(self.target_table, self.loaded.scale, device)

    @property
    def output_bytes(self) -> int:
        return 2 * len(self.target_table.outputs)

    def check_data(self, students: tuple[ModelSpec, ...], losses: tuple[DistillationLoss, ...]) -> None:
        if self.target_table.are_points and not isinstance(self.views, CropFlip):
            raise InputError(
                f"views of {type(self.views).__name__} move the points of an image; allowed is "
                "CropFlip(padding=…, flip=…), whose points move with it"
            )

    def data_record(self) -> dict[str, Any]:
        loaded, names = self.loaded, self.target_table.outputs
        scale, offset = loaded.scale, loaded.offset
        if self.target_table.are_points:  # from [−1, 1] to pixels of the decoded image, 0 the middle of the first one
            side = loaded.samples.images.shape[-1]
            scale, offset = (side / 2,) * len(names), (side / 2 - 0.5,) * len(names)
        units = zip(names, scale, offset, strict=True)
        return {"outputs": [{"name": name, "scale": one, "offset": other} for name, one, other in units]}

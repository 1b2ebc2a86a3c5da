"""Crowd counting: nets learn a density map, whose sum is the number of people; scored by the error of that number.

Photographs differ in size. Training sees crops, which are finite views of them; evaluation sees whole images, one at a
time (crowd_examples.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import describe, digest
from study.task import SPLITS
from study.trial import Direction, Split
from trainables.data.arrays.density_maps import STRIDE, AdaptiveKernels, density_maps
from trainables.data.arrays.splits import stratified_split
from trainables.data.shanghaitech import CrowdSet
from trainables.losses.density import density_mse, sum_pool
from trainables.task import Batch, Outputs, Panel
from trainables.tasks.base import Taught
from trainables.tasks.crowd_counting.examples import (
    COUNT_ERRORS,
    MULTIPLE,
    CountErrors,
    ResidentCrowds,
    density_panels,
    resident,
)
from trainables.tasks.preflight import check_students, empty_batch
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe
from trainables.training.schedules import check_range
from trainables.training.views import GridCrops, denormalise

CHANNELS = 3
ATTENDED = 0.001
"""People per pixel of a map at half the image's size from which on an attention map is to be 1."""


class CrowdData(Protocol):
    """A data set of photographs with a point for each head, see trainables/data/."""

    def load(self) -> CrowdSet: ...

    def __hash__(self) -> int: ...


class DensityNetSpec(Protocol):
    """A net for density maps by its settings, see trainables/models/."""

    @property
    def name(self) -> str: ...

    def build(self, channels: int) -> nn.Module: ...


@dataclass(frozen=True)
class CrowdCounting(Taught):
    """Train students on crops of photographs, score by the mean absolute error of their counts.

    `validation` training images are held out by `split_seed`. The study's seed does not move the split, so that a
    teacher serves all studies of one split. A teacher from a file, Teacher(weights=…), must predict
    density_scale · people per pixel, as one that is trained here does.
    """

    data: CrowdData
    teacher: Teacher
    recipe: Recipe
    views: GridCrops
    validation: int = 30
    split_seed: int = 0
    kernels: AdaptiveKernels = field(default_factory=AdaptiveKernels)
    density_scale: float = 100.0
    """What maps are multiplied by while training: people per pixel are so few that Adam's epsilon would count."""
    attention_weight: float = 0.1
    """Of the attention map's cross-entropy, in nets that have one, beside the error of an unscaled density map.

    It is multiplied by density_scale s. The error's gradient at the output y is 2·(y − s·density)/pixels: for the small
    y of the beginning s times that of an unscaled map, and so is what reaches the layers that both maps share. Later,
    as the weights that make y grow, the error counts for up to s times more than it would beside an unscaled map.
    """
    teacher_store: bool = True
    """Whether the teacher's maps are stored for the views that trials draw, or computed anew at every step."""

    def __post_init__(self) -> None:
        check_range("density_scale", self.density_scale, above=0)
        check_range("attention_weight", self.attention_weight, low=0)
        if self.views.size % MULTIPLE:
            raise InputError(f"crops of {self.views.size} pixels; allowed are multiples of {MULTIPLE}")

    # -- for the engine --------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Mapping[str, Direction]:
        names = ("loss", "task_loss", "distill_loss", "teacher_distance")
        scored = [f"{split}/{name}" for split in ("train", "val", "test", "test_at_best_val") for name in COUNT_ERRORS]
        return dict.fromkeys([*(f"train/{name}" for name in names), *scored, "best_val_epoch"], "min")

    @property
    def selection_metric(self) -> str:
        return "val/mae"

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        crowds, key = load(self.data), self.teacher_key
        sizes = {split: len(self.positions(split)) for split in ("train", "val")}
        crop = torch.zeros(1, CHANNELS, self.views.size, self.views.size)
        check_students(self, students, losses, storage, trained_on, empty_batch(crop, None))
        return {
            "data": {
                "name": crowds.name,
                "note": crowds.note,
                "complete": crowds.complete,
                "fingerprint": crowds.fingerprint,
                "test": len(crowds.test),
                **sizes,
            },
            "teacher": {"fingerprint": key},
        }

    # -- for the training loop -------------------------------------------------------------------------------------

    def examples(self, split: Split, device: str) -> ResidentCrowds:
        return _resident(self, split, device)

    def evaluation_batch(self, device: str) -> int:
        return 1

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        returned = net(batch.inputs)
        if isinstance(returned, Tensor):
            return Outputs(returned)
        density, attention = returned
        return Outputs(density, {"attention": attention})

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Mean squared error of the map; of nets with attention also the cross-entropy of where people are."""
        density = batch.targets.density
        loss = density_mse(outputs.prediction, density)
        if "attention" not in outputs.features:
            return loss
        attention = outputs.features["attention"].float()
        people = (sum_pool(density, attention) > ATTENDED * self.density_scale).float()
        return loss + self.attention_weight * self.density_scale * F.binary_cross_entropy(attention, people)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared difference of the maps, in the task's density scale."""
        return density_mse(student.prediction, teacher.prediction)

    def meters(self, device: str, split: Split) -> CountErrors:
        return CountErrors(self.density_scale, device)

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        crowds = load(self.data)
        return density_panels(outputs, batch, denormalise(batch.inputs, crowds.mean, crowds.std), self.density_scale)

    # -- nets and inputs -------------------------------------------------------------------------------------------

    def build(self, model: DensityNetSpec) -> nn.Module:
        return model.build(CHANNELS)

    @property
    def teacher_key(self) -> str:
        settings = [describe(self.views), self.density_scale, self.attention_weight, describe(self.kernels)]
        return self.teacher.compute_key([self.pool_key, self.validation, self.split_seed, *settings])

    @property
    def pool_key(self) -> str:
        crowds = load(self.data)
        return digest(crowds.fingerprint, crowds.mean, crowds.std, MULTIPLE)

    @property
    def stored_output_bytes(self) -> int | None:
        return 2 * (self.views.size // STRIDE) ** 2 if self.teacher_store else None  # a float16 map

    def positions(self, split: Split) -> Tensor:
        # one class: nothing about a photograph is known before its heads are counted
        pool = np.zeros(len(load(self.data).train), dtype=np.int64)
        train, val = stratified_split(pool, self.validation, self.split_seed)
        return torch.from_numpy({"train": train, "val": val, "train+val": np.arange(len(pool))}[split])


# Kept for the life of a process: a reused worker loads data and teacher once, not once a trial.


@lru_cache(maxsize=2)
def load(data: CrowdData) -> CrowdSet:
    return data.load()


@lru_cache(maxsize=8)
def _resident(task: CrowdCounting, split: Split, device: str) -> ResidentCrowds:
    if split in ("train", "val"):
        return _resident(task, "train+val", device).at(task.positions(split))
    crowds = load(task.data)
    scenes = crowds.test if split == "test" else crowds.train
    maps = density_maps(scenes, task.kernels)
    return resident(scenes, maps, crowds.mean, crowds.std, task.views, task.density_scale, device)

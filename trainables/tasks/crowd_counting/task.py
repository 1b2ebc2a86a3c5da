"""Crowd counting: nets learn a density map, whose sum is the number of people; scored by the error of that number.

Photographs differ in size. Training reads crops, which are finite views of them; evaluation reads whole images, one at
a time (examples.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import InputError
from study.identity import digest
from study.trial import Split
from trainables.data.arrays.splits import split_pool
from trainables.data.shanghaitech import CrowdSet
from trainables.losses.density import density_mse, sum_pool
from trainables.models.msfanet import DualPath
from trainables.task import Batch, ModelSpec, Outputs, Panel, without_pretrained
from trainables.tasks.base import DistillationTask
from trainables.tasks.crowd_counting.density_maps import STRIDE, AdaptiveKernels, load_density_maps
from trainables.tasks.crowd_counting.examples import MULTIPLE, ResidentCrowds, make_resident
from trainables.tasks.crowd_counting.metrics import COUNT_ERRORS, CountErrors, draw_density_panels
from trainables.tasks.preflight import blank_batch
from trainables.teacher.weights import fill_net
from trainables.training.settings import check_range
from trainables.training.views import GridCrops, denormalise
from trainables.training.weights_file import read_net

CHANNELS = 3
ATTENDED = 0.001
"""Density, in people per pixel of a map at half the image's size, from which an attention map's target is 1."""


_VERSION = "validation stratified by count, means of CAN upsampled with align_corners=False"
"""Enters the keys of teachers and their outputs: change it with the split, or with a net's computation."""


@dataclass(frozen=True)
class CrowdCounting(DistillationTask[CrowdSet]):
    """Train students on crops of photographs, score them by the mean absolute error of their counts.

    The study's seed does not move the split, so that one teacher serves all studies of a split. A teacher from a file,
    Teacher(weights=…), must predict density_scale · people per pixel, as one that is trained here does; the authors'
    checkpoints of M-SFANet are recognised by their names, and scaled.
    Raises InputError for crops that are no multiples of 16 pixels, or a scale or weight out of range.
    """

    views: GridCrops
    validation: int = 30
    """Training images held out, one of each of as many groups of similar counts."""
    split_seed: int = 0
    kernels: AdaptiveKernels = field(default_factory=AdaptiveKernels)
    density_scale: float = 100.0
    """Factor of density maps in training: people per pixel are so few that Adam's epsilon would matter."""
    attention_weight: float = 0.1
    """Weight of the attention map's cross-entropy, for nets that have one, relative to the error of an unscaled map.

    It is multiplied by density_scale s. The error's gradient at the output y is 2·(y − s·density)/pixels: for the small
    y of the first steps s times that of an unscaled map, and so is the gradient that reaches the layers that both maps
    share. Later, as the weights that make y grow, the error counts up to s times more than that of an unscaled map.
    """

    scores = COUNT_ERRORS
    prediction = "a density map (B, 1, h, w); its sum divided by the task's density_scale is the number of people"
    dataset_type: ClassVar = CrowdSet
    allowed_data: ClassVar = "DrawnCrowds, ShanghaiTech"
    evaluation_batch_sizes: ClassVar = {"cpu": 1, "cuda": 1}

    def __post_init__(self) -> None:
        check_range("density_scale", self.density_scale, above=0)
        check_range("attention_weight", self.attention_weight, low=0)
        if self.views.size % MULTIPLE:
            raise InputError(f"crops of {self.views.size} pixels; allowed are multiples of {MULTIPLE}")

    def build(self, model: ModelSpec) -> nn.Module:
        return model.build(CHANNELS)

    def load_examples(self, split: Split, device: str) -> ResidentCrowds:
        if split in ("train", "val"):
            return cast(ResidentCrowds, self.examples("train+val", device)).select(self.positions(split))
        crowds = self.loaded
        scenes = crowds.test if split == "test" else crowds.train
        maps = load_density_maps(scenes, self.kernels)
        return make_resident(scenes, maps, crowds.mean, crowds.std, self.views, self.density_scale, device)

    def positions(self, split: Split) -> Tensor:
        counts = np.array([scene.count for scene in self.loaded.train])
        groups = group_by_count(counts, self.validation)
        splits = split_pool(groups, len(self.loaded.test), self.validation, self.split_seed, self.loaded.equal)
        return torch.from_numpy(splits[split])

    def load_teacher_file(self, path: Path) -> nn.Module:
        net = self.build(without_pretrained(self.teacher.model))
        if not isinstance(net, DualPath):
            return super().load_teacher_file(path)
        try:
            state = net.rename_authors_state(read_net(path, net.expect_authors_state()))
        except InputError:  # not the authors' names: this project's, or a file that does not fit
            return super().load_teacher_file(path)
        # the authors' net predicts people, a teacher here density_scale times as much; its last layer is linear
        state |= {name: state[name] * self.density_scale for name in ("density.weight", "density.bias")}
        return fill_net(net, state, path)

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        returned = net(batch.inputs)
        if isinstance(returned, Tensor):
            return Outputs(returned)
        density, attention = returned
        return Outputs(density, {"attention": attention})

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Mean squared error of the map (B, 1, h, w); for nets with attention plus the cross-entropy of its map."""
        density = batch.targets.density
        loss = density_mse(outputs.prediction, density)
        if "attention" not in outputs.features:
            return loss
        attention = outputs.features["attention"].float()
        people = (sum_pool(density, attention) > ATTENDED * self.density_scale).float()
        return loss + self.attention_weight * self.density_scale * F.binary_cross_entropy(attention, people)

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared difference of the maps (B, 1, h, w), in the task's density scale."""
        return density_mse(student.prediction, teacher.prediction)

    def meters(self, device: str, split: Split) -> CountErrors:
        return CountErrors(self.density_scale, device)

    def sample_batch(self) -> Batch:
        return blank_batch(torch.zeros(1, CHANNELS, self.views.size, self.views.size), None)

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        images = denormalise(batch.inputs, self.loaded.mean, self.loaded.std)
        return draw_density_panels(outputs, batch, images, self.density_scale)

    @property
    def pool_key(self) -> str:
        return digest(super().pool_key, MULTIPLE, _VERSION)

    @property
    def output_bytes(self) -> int:
        return 2 * (self.views.size // STRIDE) ** 2


def group_by_count(counts: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.int64]:
    """Return the group of each photograph, of `groups` of equal size and ascending counts: (N,) → (N,).

    Of equal counts the earlier photograph is in the lower group; sizes differ by one at most.
    """
    ranks = np.empty(len(counts), dtype=np.int64)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return ranks * groups // len(counts)

"""Face super-resolution: nets make a face of 8 times the size from a small one; scored by PSNR, SSIM and LPIPS.

The teacher looks up components of faces in a dictionary; its features are as large as its images and are not stored.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import describe, digest
from study.task import SPLITS, Plan, Preparation
from study.trial import Direction, EpochResult, Split, TrialContext
from trainables.data.arrays.face_sr import SrSet
from trainables.losses.common.pixel import check_norm, pixel_error
from trainables.models.sr.component_transfer import COMPONENTS, dictionary_of, fill_dictionary
from trainables.task import Batch, Outputs, Panel
from trainables.tasks.base import Taught
from trainables.tasks.face_sr.dictionary import build_dictionary
from trainables.tasks.face_sr.examples import SrExamples, SrTargets, sr_examples
from trainables.tasks.face_sr.metrics import SCORES, Channel, LpipsNet, SrScores, lpips_lacks
from trainables.tasks.face_sr.panels import sr_panels
from trainables.tasks.face_sr.perceptual import perceptual_error, perceptual_vgg
from trainables.tasks.preflight import check_students, empty_batch
from trainables.tasks.profiling import limit_to_gpu_share
from trainables.teacher import preparation as preparing
from trainables.teacher import weights as teachers
from trainables.teacher.weights import Teacher
from trainables.training.recipe import Recipe
from trainables.training.schedules import check_range
from trainables.training.views import Flips

EVALUATION_BATCH = {"cpu": 8, "cuda": 32}
DICTIONARY = "dictionary"
TRIED_PIXELS = 64
"""The side of the empty face that nets are tried on, at most."""


class SrData(Protocol):
    """A data set of faces, see trainables/data/."""

    def load(self) -> SrSet: ...

    def __hash__(self) -> int: ...


class SrNetSpec(Protocol):
    """A net for super-resolution by its settings, see trainables/models/."""

    @property
    def name(self) -> str: ...

    def build(self, scale: int) -> nn.Module: ...


def has_dictionary(model: SrNetSpec) -> bool:
    return bool(getattr(model, "atoms", 0))


@dataclass(frozen=True)
class FaceSR(Taught):
    """Train nets to restore faces of `scale` times the size, score by the mean PSNR of the test images.

    task_loss = pixel_weight·error(image, truth) + perceptual_weight·Σ error of what VGG-19 sees, alike for all nets; of
    a recurrent net the first is the mean over its steps. The teacher learns from the training split by it alone.
    Raises InputError for an unknown norm or a weight below 0.
    """

    data: SrData
    teacher: Teacher
    recipe: Recipe
    scale: int = 8
    views: Flips = field(default_factory=Flips)
    pixel_norm: str = "mse"
    pixel_weight: float = 1.0
    perceptual_weight: float = 0.0
    """Above 0, ImageNet weights of VGG-19 must be there."""
    channel: Channel = "rgb"
    """Of what PSNR and SSIM are: "rgb", or "y" for luma."""
    lpips: LpipsNet | None = "alex"
    dictionary_seed: int = 0

    def __post_init__(self) -> None:
        check_norm("pixel_norm", self.pixel_norm)
        check_range("pixel_weight", self.pixel_weight, low=0)
        check_range("perceptual_weight", self.perceptual_weight, low=0)

    # -- for the engine --------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Mapping[str, Direction]:
        losses = ("loss", "task_loss", "distill_loss", "teacher_distance")
        directions: dict[str, Direction] = {f"train/{name}": "min" for name in losses}
        directions |= {"train/psnr": "max", "best_val_epoch": "min"}
        for split in ("val", "test", "test_at_best_val"):
            for name in SCORES:
                directions[f"{split}/{name}"] = "min" if name == "lpips" else "max"
        return directions

    @property
    def selection_metric(self) -> str:
        return "val/psnr"

    def with_live_teacher(self) -> FaceSR:
        return self  # it is never stored

    def check(
        self, students: tuple[Any, ...], losses: tuple[Any, ...], storage: Path, trained_on: tuple[Split, ...] = SPLITS
    ) -> dict[str, Any]:
        faces, key = load(self.data), self.teacher_key
        sr_examples(faces.test, self.scale, "cpu")
        for model in (self.teacher.model, *students):
            if has_dictionary(model) and faces.boxes is None:
                raise InputError(
                    f"{model.name} needs boxes of eyes, nose and mouth, and {faces.name} has no landmarks: "
                    "add its landmark file, or take a net without a dictionary"
                )
        for model in students:
            if has_dictionary(model):
                raise InputError(f"student {model.name} has a dictionary, which only a teacher gets: give it atoms=0")
        if self.perceptual_weight:
            perceptual_vgg("cpu")
        check_students(self, students, losses, storage, trained_on, self._empty_face(), self.untrained)
        train, val, test = faces.sizes
        absent = lpips_lacks(self.lpips) if self.lpips else ""
        return {
            "data": {
                "name": faces.name,
                "note": "; ".join(part for part in (faces.note, absent) if part),
                "complete": faces.complete,
                "fingerprint": faces.fingerprint,
                "train": train,
                "val": val,
                "test": test,
                "absent": {"lpips": "weights absent"} if absent else {},
                "measure": {"scale": self.scale, "channel": self.channel, "lpips": self.lpips},
                "why_incomplete": "" if faces.complete else "no paper says which of these faces its figures are of",
            },
            "teacher": {"fingerprint": key},
        }

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        steps = preparing.list_preparations(self, storage, plan)
        model = self.teacher.model
        trained = any(step.name == preparing.TEACHER for step in steps) and self.teacher.weights is None
        if not trained or not has_dictionary(model) or self._dictionary(storage).is_file():
            return steps
        note = f"build the dictionary of {model.name}"
        config = {"pool": self.pool_key, "model": describe(model), "seed": self.dictionary_seed}
        return [Preparation(DICTIONARY, 1, config, stage=-1, note=note), *steps]

    def prepare(self, job: TrialContext) -> Iterator[EpochResult]:
        step = self._dictionary_step(job) if job.trial.arm == DICTIONARY else preparing.run_preparation(self, job)
        return limit_to_gpu_share(job, step)

    # -- for the training loop -------------------------------------------------------------------------------------

    def examples(self, split: Split, device: str) -> SrExamples:
        return _examples(self.data, split, self.scale, device)

    def evaluation_batch(self, device: str) -> int:
        return EVALUATION_BATCH[device]

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        # an exported student is fed images alone
        restored = net(batch.inputs, batch.targets.boxes if batch.targets is not None else None)
        steps = {} if restored.steps is None else {"steps": restored.steps}
        return Outputs(restored.image, {"last": restored.features, **steps})

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        truth = batch.targets.image
        steps = outputs.features.get("steps")
        pixels = (outputs.prediction, truth) if steps is None else (steps, truth[:, None])
        loss = self.pixel_weight * pixel_error(self.pixel_norm, *pixels)
        if self.perceptual_weight:
            vgg = perceptual_vgg(str(truth.device))
            loss = loss + self.perceptual_weight * perceptual_error(vgg, outputs.prediction, truth)
        return loss

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared difference of the images."""
        return F.mse_loss(student.prediction.float(), teacher.prediction.float())

    def meters(self, device: str, split: Split) -> SrScores:
        return SrScores(device, self.channel, self.lpips, psnr_only=split == "train")

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        return sr_panels(outputs, batch, self.scale)

    # -- nets and inputs -------------------------------------------------------------------------------------------

    def build(self, model: SrNetSpec) -> nn.Module:
        return model.build(self.scale)

    def teacher_net(self, job: TrialContext) -> nn.Module:
        net = super().teacher_net(job)
        if not has_dictionary(self.teacher.model):
            return net
        path = self._dictionary(job.storage)
        if not path.is_file():
            self._build_dictionary(job)
        return fill_dictionary(net, safetensors.torch.load_file(path))

    @property
    def teacher_key(self) -> str:
        losses = [self.pixel_norm, self.pixel_weight, self.perceptual_weight]
        # its scores are kept with it: those of another channel, or without LPIPS, are another teacher's
        scored = [self.channel, self.lpips, bool(self.lpips and lpips_lacks(self.lpips))]
        trained = [self.pool_key, list(load(self.data).sizes), describe(self.views), self.scale, *losses]
        return self.teacher.compute_key([*trained, self.dictionary_seed, *scored])

    @property
    def pool_key(self) -> str:
        return digest(load(self.data).fingerprint)

    @property
    def stored_output_bytes(self) -> None:
        """Features of 64 channels at 256 × 256 pixels are 8 MB a face and view: the teacher is asked live."""
        return None

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*load(self.data).bounds(split))

    def _dictionary_step(self, job: TrialContext) -> Iterator[EpochResult]:
        started = time.perf_counter()
        self._build_dictionary(job)
        yield EpochResult(epoch=1, metrics={}, schedules={}, seconds=time.perf_counter() - started)

    def _build_dictionary(self, job: TrialContext) -> None:
        faces = load(self.data).train
        assert faces.boxes is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a mapped file that cannot be written to: nothing writes to it
            images, boxes = torch.from_numpy(faces.images), torch.from_numpy(faces.boxes)
        net = self.build(self.teacher.model)
        atoms = build_dictionary(net, images, boxes, self.dictionary_seed, job.device)
        with atomic_write(self._dictionary(job.storage)) as aside:
            safetensors.torch.save_file({name: part.contiguous() for name, part in atoms.items()}, aside)

    def _dictionary(self, storage: Path) -> Path:
        """Beside the teacher that it is for, where all nodes find it."""
        return teachers.teacher_folder(storage, self.teacher_key) / "dictionary.safetensors"

    def untrained(self, model: SrNetSpec) -> nn.Module:
        """A net whose dictionary, if it has one, holds noise: enough to see that all fits together."""
        net = self.build(model)
        if not has_dictionary(model):
            return net
        return fill_dictionary(net, {part.name: torch.rand(part.shape) for part in dictionary_of(net).parts})

    def _empty_face(self) -> Batch:
        side = min(int(load(self.data).images.shape[-1]), TRIED_PIXELS)
        boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).mul(side).expand(1, len(COMPONENTS), 4)
        small = torch.zeros(1, 3, side // self.scale, side // self.scale)
        return empty_batch(small, SrTargets(torch.zeros(1, 3, side, side), boxes))


# Kept for the life of a process: a reused worker opens the data once, not once a trial.


@lru_cache(maxsize=2)
def load(data: SrData) -> SrSet:
    return data.load()


@lru_cache(maxsize=8)
def _examples(data: SrData, split: Split, scale: int, device: str) -> SrExamples:
    faces = load(data)
    return sr_examples(faces.split(split), scale, device)

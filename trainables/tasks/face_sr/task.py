"""Face super-resolution: nets make a face of 8 times the size from a small one; scored by PSNR, SSIM and LPIPS.

The teacher looks up components of faces in a dictionary, which is built before the teacher is trained. Its features are
as large as its images and are not stored.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.atomic import atomic_write
from study.errors import InputError
from study.identity import describe, digest
from study.task import Plan, Preparation
from study.trial import EpochResult, Split, TrialContext
from trainables.data.arrays.face_sr import SrSet
from trainables.losses.common.image_distance import NORMS, pixel_error
from trainables.losses.reconstruction import get_reconstruction
from trainables.models.sr.common import COMPONENTS
from trainables.models.sr.component_transfer import fill_dictionary, get_dictionary
from trainables.task import Batch, DistillationLoss, ModelSpec, Outputs, Panel
from trainables.tasks.base import DistillationTask
from trainables.tasks.face_sr.dictionary import build_dictionary
from trainables.tasks.face_sr.examples import SrExamples, SrTargets
from trainables.tasks.face_sr.metrics import (
    SCORES,
    SSIM_WINDOW,
    Channel,
    LpipsNet,
    ScoreOptions,
    SrScores,
    missing_lpips_weights,
)
from trainables.tasks.face_sr.panels import draw_sr_panels
from trainables.tasks.face_sr.perceptual import load_perceptual_vgg, perceptual_error
from trainables.tasks.preflight import blank_batch
from trainables.tasks.profiling import limit_to_gpu_share
from trainables.teacher import preparation
from trainables.teacher.weights import teacher_folder
from trainables.training.settings import check_choice, check_range
from trainables.training.views import Flips

DICTIONARY = "dictionary"
"""Name of the preparation that builds the teacher's dictionary."""
SAMPLE_PIXELS = 64
"""Side of the blank face on which nets are tried, at most."""


@dataclass(frozen=True)
class FaceSR(DistillationTask[SrSet]):
    """Train nets to restore faces of `scale` times the size, score them by the mean PSNR of the test images.

    task_loss = pixel_weight·error(image, truth) + perceptual_weight·Σ error of VGG-19's activations, the same for all
    nets but those of an arm with a `Reconstruction` of its own; for a recurrent net the first term is the mean over its
    steps. The teacher is trained by it alone, on the training split.
    Raises InputError for an unknown norm, or a weight or border below 0.
    """

    views: Flips = field(default_factory=Flips)
    scale: int = 8
    pixel_norm: str = "mse"
    pixel_weight: float = 1.0
    perceptual_norm: str = "mse"
    perceptual_weight: float = 0.0
    """Above 0, torchvision's file of VGG-19's ImageNet weights is required."""
    channel: Channel = "rgb"
    """The colours that PSNR and SSIM compare: "rgb", or "y" for luma."""
    rounded: bool = False
    """Whether scores are those of images rounded to 8 bits."""
    border: int = 0
    """Pixels at each side that PSNR and SSIM leave out."""
    lpips: LpipsNet | None = "alex"
    dictionary_seed: int = 0

    scores = SCORES
    train_scores = SCORES[:1]
    prediction = "an image (B, 3, H, W), shares of 1 as the input is, to be clamped to 0…1"
    dataset_type: ClassVar = SrSet
    allowed_data: ClassVar = "DrawnSrFaces, PhotoFolder, VGGFace2"

    def __post_init__(self) -> None:
        check_choice("pixel_norm", self.pixel_norm, NORMS)
        check_choice("perceptual_norm", self.perceptual_norm, NORMS)
        check_range("pixel_weight", self.pixel_weight, low=0)
        check_range("perceptual_weight", self.perceptual_weight, low=0)
        check_range("border", self.border, low=0)

    def build(self, model: ModelSpec) -> nn.Module:
        return model.build(self.scale)

    def load_examples(self, split: Split, device: str) -> SrExamples:
        return SrExamples(self.loaded.split(split), self.views, self.scale, device)

    def positions(self, split: Split) -> Tensor:
        return torch.arange(*self.loaded.bounds(split))

    def outputs(self, net: nn.Module, batch: Batch) -> Outputs:
        # an exported student is given images alone
        restored = net(batch.inputs, batch.targets.boxes if batch.targets is not None else None)
        steps = {} if restored.steps is None else {"steps": restored.steps}
        return Outputs(restored.image, {"last": restored.features, **steps})

    def task_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Pixel and perceptual error of the image (B, 3, H, W), or of a recurrent net's images (B, T, 3, H, W)."""
        truth = batch.targets.image
        steps = outputs.features.get("steps")
        pixels = (outputs.prediction, truth) if steps is None else (steps, truth[:, None])
        loss = self.pixel_weight * pixel_error(self.pixel_norm, *pixels)
        if self.perceptual_weight:
            vgg = load_perceptual_vgg(str(truth.device))
            error = perceptual_error(vgg, outputs.prediction, truth, self.perceptual_norm)
            loss = loss + self.perceptual_weight * error
        return loss

    def adapt_to(self, loss: DistillationLoss) -> FaceSR:
        own = get_reconstruction(loss)
        return self if own is None else replace(self, **vars(own))

    def teacher_distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Mean squared difference of the images (B, 3, H, W)."""
        return F.mse_loss(student.prediction.float(), teacher.prediction.float())

    def meters(self, device: str, split: Split) -> SrScores:
        return SrScores(device, self._score_options, self.lpips, psnr_only=split == "train")

    def sample_batch(self) -> Batch:
        side = min(int(self.loaded.images.shape[-1]), SAMPLE_PIXELS)
        boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).mul(side).expand(1, len(COMPONENTS), 4)
        small = torch.zeros(1, 3, side // self.scale, side // self.scale)
        return blank_batch(small, SrTargets(torch.zeros(1, 3, side, side), boxes))

    def panels(self, outputs: Outputs, batch: Batch) -> Sequence[Panel]:
        return draw_sr_panels(outputs, batch, self.scale)

    def data_record(self) -> dict[str, Any]:
        faces, missing = self.loaded, missing_lpips_weights(self.lpips)
        return {
            "note": missing,
            "absent": {"lpips": "weights absent"} if missing else {},
            "measure": {
                "scale": self.scale,
                "channel": self.channel,
                "rounded": self.rounded,
                "border": self.border,
                "ssim": "whole windows",
                "lpips": self.lpips,
            },
            "measured_as": {
                "psnr": str(self._score_options),
                "ssim": str(self._score_options),
                "lpips": self.lpips or "",
            },
            "why_incomplete": "" if faces.complete else "no paper says which of these faces its figures are of",
        }

    def check_data(self, students: tuple[ModelSpec, ...], losses: tuple[DistillationLoss, ...]) -> None:
        self.examples("test", "cpu")  # raises for an impossible scale
        most = (int(self.loaded.images.shape[-1]) - SSIM_WINDOW) // 2
        if self.border > most:
            raise InputError(f"border is {self.border}; allowed is at most {most}, which leaves a window of SSIM")
        if has_dictionary(self.teacher.model) and self.loaded.boxes is None:
            raise InputError(
                f"{self.teacher.model.name} needs boxes of eyes, nose and mouth, and {self.loaded.name} has no "
                "landmarks: add its landmark file, or take a net without a dictionary"
            )
        for model in filter(has_dictionary, students):
            raise InputError(f"student {model.name} has a dictionary, which only a teacher gets: give it atoms=0")
        if any(task.perceptual_weight for task in (self, *map(self.adapt_to, losses))):
            load_perceptual_vgg("cpu")

    @property
    def _score_options(self) -> ScoreOptions:
        return ScoreOptions(self.channel, self.rounded, self.border)

    @property
    def teacher_key(self) -> str:
        # the teacher's scores lie with its weights: with LPIPS it is another record
        return digest(super().teacher_key, bool(missing_lpips_weights(self.lpips)))

    # -- the teacher's dictionary --------------------------------------------------------------------------------------

    def list_preparations(self, storage: Path, plan: Plan) -> list[Preparation]:
        steps = super().list_preparations(storage, plan)
        model = self.teacher.model
        trained = any(step.name == preparation.TEACHER for step in steps) and self.teacher.weights is None
        if not trained or not has_dictionary(model) or self._dictionary(storage).is_file():
            return steps
        note = f"build the dictionary of {model.name}"
        config = {"pool": self.pool_key, "model": describe(model), "seed": self.dictionary_seed}
        return [Preparation(DICTIONARY, 1, config, stage=-1, note=note), *steps]

    def prepare(self, context: TrialContext) -> Iterator[EpochResult]:
        if context.trial.arm == DICTIONARY:
            return limit_to_gpu_share(context, self._prepare_dictionary(context))
        return super().prepare(context)

    def teacher_net(self, context: TrialContext) -> nn.Module:
        net = super().teacher_net(context)
        if not has_dictionary(self.teacher.model):
            return net
        path = self._dictionary(context.storage)
        if not path.is_file():
            self._build_dictionary(context)
        return fill_dictionary(net, safetensors.torch.load_file(path))

    def build_for_checks(self, model: ModelSpec) -> nn.Module:
        net = self.build(model)
        if not has_dictionary(model):
            return net
        return fill_dictionary(net, {part.name: torch.rand(part.shape) for part in get_dictionary(net).parts})

    def _prepare_dictionary(self, context: TrialContext) -> Iterator[EpochResult]:
        started = time.perf_counter()
        self._build_dictionary(context)
        yield EpochResult(epoch=1, metrics={}, schedules={}, seconds=time.perf_counter() - started)

    def _build_dictionary(self, context: TrialContext) -> None:
        faces = self.loaded.train
        assert faces.boxes is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a read-only memory map: nothing writes to it
            images, boxes = torch.from_numpy(faces.images), torch.from_numpy(faces.boxes)
        net = self.build(self.teacher.model)
        atoms = build_dictionary(net, images, boxes, self.dictionary_seed, context.device)
        with atomic_write(self._dictionary(context.storage)) as temporary:
            safetensors.torch.save_file({name: part.contiguous() for name, part in atoms.items()}, temporary)

    def _dictionary(self, storage: Path) -> Path:
        """Path of the dictionary, in the folder of its teacher, where all nodes find it."""
        return teacher_folder(storage, self.teacher_key) / "dictionary.safetensors"


def has_dictionary(model: ModelSpec) -> bool:
    """Return whether a net of these settings has a dictionary, which is filled in before its training."""
    return bool(getattr(model, "atoms", 0))

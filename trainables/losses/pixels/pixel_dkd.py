"""DKD for segmentation: at each pixel a term on the label's class and a term among the other classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled
from trainables.losses.common.per_pixel import check_pixel_loss, mean_labelled_divergence
from trainables.losses.common.pixel_transform import TRANSFORMS, transform_logits
from trainables.losses.logits.dkd import tckd_nckd
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_choice, check_range, value_at


@dataclass(frozen=True)
class PixelDKD:
    """weight · mean over all pixels of T²·(alpha·TCKD + beta·NCKD), each pixel a sample of `DKD`.

    TCKD compares the probabilities of the pixel's label and of all other classes, NCKD the probabilities among these
    (`tckd_nckd` in losses/logits/dkd.py). Logits are (B, K, h, w), of any two resolutions, K ≥ 2; of two classes NCKD
    is 0. Under a `transform` the logits are first transformed over all classes of the pixel. There is no warm-up: a
    schedule of `weight` is one.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: Zhao et al. 2022, eq. 7, per pixel; P0 leaves LDT over other losses on logits to future work. T = 1 as in
    `PixelKD`; alpha and beta are the smallest that Zhao et al. use.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    alpha: FloatOrSchedule = 1.0
    beta: FloatOrSchedule = 2.0
    transform: str | None = None
    """Transformation of the logits before the comparison, "ldt" or "standardise": see common/pixel_transform.py."""
    resolution: str = "full"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    needs_teacher: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_pixel_loss(self)
        check_range("alpha", self.alpha, low=0)
        check_range("beta", self.beta, low=0)
        check_choice("transform", self.transform, TRANSFORMS)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (), given predictions (B, K, h, w), of any two resolutions, and labels (B, H, W) int64."""
        temperature, alpha, beta = (value_at(each, progress) for each in (self.temperature, self.alpha, self.beta))

        def divergence(z_s: Tensor, z_t: Tensor, labels: Tensor) -> Tensor:  # (N, K, …) twice, (N, 1, …) → (N, 1, …)
            order = put_label_first(labels, z_s.shape[1])
            z_s, z_t = (z.gather(1, order) for z in transform_logits(self.transform, z_s, z_t))
            tckd, nckd = tckd_nckd(z_s, z_t, temperature)
            return alpha * tckd + beta * nckd

        with autocast_disabled(student):
            mean = mean_labelled_divergence(self, divergence, student, teacher, targets)
            return value_at(self.weight, progress) * mean


def put_label_first(labels: Tensor, classes: int) -> Tensor:
    """Return the order of classes with the label first, the others ascending: (N, 1, …) → (N, K, …) int64."""
    others = torch.arange(classes - 1, device=labels.device).view(-1, *[1] * (labels.dim() - 2))
    return torch.cat((labels, others + (others >= labels)), dim=1)

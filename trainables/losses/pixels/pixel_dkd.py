"""DKD for segmentation: at each pixel a term on the label's class and a term among the other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.losses.common.logits import autocast_disabled
from trainables.losses.common.per_pixel import PixelLoss, centre, find_size, sample_labels
from trainables.losses.common.pixel_transform import TRANSFORMS, transform_logits
from trainables.losses.common.row_blocks import LabelRows, RowUpsampler, mean_over_pixels
from trainables.losses.logits.dkd import tckd_nckd
from trainables.task import Outputs
from trainables.training.settings import FloatOrSchedule, Progress, check_choice, check_range, value_at


@dataclass(frozen=True)
class PixelDKD(PixelLoss):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, low=0)
        check_range("beta", self.beta, low=0)
        check_choice("transform", self.transform, TRANSFORMS)

    def __call__(self, student: Outputs, teacher: Outputs, targets: Tensor, progress: Progress) -> Tensor:
        """Return the loss (); IGNORED pixels count as 0, as in the task loss.

        At the student's resolution a pixel's label is the one at its centre.
        """
        size = find_size(self, student, targets)
        labels_of, temperature = LabelRows(sample_labels(targets, size)), value_at(self.temperature, progress)
        alpha, beta = value_at(self.alpha, progress), value_at(self.beta, progress)

        def compare(z_s: Tensor, others: tuple[Tensor, Tensor, Tensor]) -> Tensor:  # (N, K, …) → (N, 1, …)
            z_t, labels, is_counted = others  # (N, K, …), (N, 1, …) twice
            order = put_label_first(labels, z_s.shape[1])
            z_s, z_t = (z.gather(1, order) for z in transform_logits(self.transform, z_s, z_t))
            tckd, nckd = tckd_nckd(z_s, z_t, temperature)
            return (alpha * tckd + beta * nckd) * is_counted

        with autocast_disabled(student):
            teacher_of = RowUpsampler(centre(teacher.prediction.detach()), size).upsample
            mean = mean_over_pixels(
                compare, centre(student.prediction), lambda rows: (teacher_of(rows), *labels_of(rows)), size
            )
            return value_at(self.weight, progress) * mean


def put_label_first(labels: Tensor, classes: int) -> Tensor:
    """Return the order of classes with the label first, the others ascending: (N, 1, …) → (N, K, …) int64."""
    others = torch.arange(classes - 1, device=labels.device).view(-1, *[1] * (labels.dim() - 2))
    return torch.cat((labels, others + (others >= labels)), dim=1)

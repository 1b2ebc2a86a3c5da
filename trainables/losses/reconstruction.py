"""Task losses of an arm's own for super-resolution: a paper's objective as printed, or that of a rival's authors.

All other arms share the task loss of the study's task.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainables.losses.common.image_distance import NORMS
from trainables.losses.none import NoDistillation
from trainables.training.settings import check_choice, check_range


@dataclass(frozen=True)
class Reconstruction:
    """pixel_weight · error(image, truth) + perceptual_weight · Σ_i error(f_i(image), f_i(truth)), f_i taps of VGG-19.

    Norms are those of `pixel_error` (common/image_distance.py): "l1", "mse" or "l2norm".
    Raises InputError for an unknown norm or a weight below 0.
    """

    pixel_norm: str = "l1"
    pixel_weight: float = 1.0
    perceptual_norm: str = "mse"
    perceptual_weight: float = 0.0
    """Above 0, torchvision's file of VGG-19's ImageNet weights is required."""

    def __post_init__(self) -> None:
        check_choice("pixel_norm", self.pixel_norm, NORMS)
        check_choice("perceptual_norm", self.perceptual_norm, NORMS)
        check_range("pixel_weight", self.pixel_weight, low=0)
        check_range("perceptual_weight", self.perceptual_weight, low=0)


@dataclass(frozen=True)
class ReconstructionAlone(NoDistillation):
    """No distillation, under a task loss of the arm's own; the default is that of RCAN's and SRFBN's authors, L1.

    Source: Zhang et al. 2018, equation 4; Li et al. 2019, equation 8, whose mean over steps the task takes.
    """

    reconstruction: Reconstruction = field(default_factory=Reconstruction)


def get_reconstruction(loss: Any) -> Reconstruction | None:
    """Return the task loss that an arm's loss brings along; None if it trains under the task's."""
    found: Reconstruction | None = getattr(loss, "reconstruction", None)
    return found

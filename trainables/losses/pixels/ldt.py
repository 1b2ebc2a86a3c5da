"""LDT for segmentation: at each pixel the student's logits are scaled to the teacher's spread before the comparison."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainables.losses.common.fused import fused_kd
from trainables.losses.common.per_pixel import PixelDivergence
from trainables.losses.common.pixel_transform import match_spread
from trainables.training.settings import FloatOrSchedule, check_type


@dataclass(frozen=True)
class LDT(PixelDivergence):
    """`PixelKD` of transformed student logits z_s' = (z_s − μ_s)/σ_s · σ_t and the teacher's unchanged logits.

    μ, σ: mean and standard deviation over the classes of each pixel; σ_t is a constant. Adding μ_t would change
    nothing, since softmax ignores it, and σ_t/σ_s is the same whether both are unbiased or not. The loss equals
    `PixelKD` with temperature T·σ_s/σ_t for the student at each pixel: the size of its logits is left to the task loss.
    It is `PixelKD(transform="ldt")` with a choice of the gradient; over DKD it is `PixelDKD(transform="ldt")`.
    Raises InputError for a setting, or an end of a schedule, out of range.
    Source: P0, equation 6, which does not define the place of T; here T divides both sides.
    """

    temperature: FloatOrSchedule = 1.0
    weight: FloatOrSchedule = 1.0
    detach_statistics: bool = False
    """Whether μ_s and σ_s are constants, too; the paper leaves it open, the code that it builds on passes gradients."""
    resolution: str = "full"
    """Where the nets are compared: "full" is the resolution of the labels, "student" that of the student's head."""
    task_weight: FloatOrSchedule = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type("detach_statistics", self.detach_statistics, bool, "True, False, or choice(False, True)")

    def compare(self, z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
        return fused_kd(match_spread(z_s, z_t, self.detach_statistics), z_t, temperature)

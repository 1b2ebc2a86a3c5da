"""Warm-up: a schedule that rises to another one, as vision transformers and large batches need, and that of losses."""

from __future__ import annotations

from dataclasses import dataclass

from study.trial import Progress
from trainables.training.schedules import FloatOrSchedule, check_range, value_at


@dataclass(frozen=True)
class Warmup:
    """`schedule` times a factor that rises linearly from `start` to 1 over the first `share` of the run.

    Warmup(Cosine(1e-3), share=0.1) is the usual learning rate of vision transformers; a new value at every step.
    Raises InputError for a start outside [0, 1] or a share outside (0, 1].
    Source: Goyal et al. 2017, section 2.2.
    """

    schedule: FloatOrSchedule
    share: float = 0.05
    start: float = 0.01

    def __post_init__(self) -> None:
        check_range("schedule", self.schedule)
        check_range("share", self.share, above=0, high=1)
        check_range("start", self.start, low=0, high=1)

    def value_at(self, progress: Progress) -> float:
        risen = min(1.0, progress.fraction / self.share)
        return value_at(self.schedule, progress) * (self.start + (1 - self.start) * risen)

    def bounds(self) -> tuple[float, float]:
        ends = (self.schedule,) if isinstance(self.schedule, int | float) else self.schedule.bounds()
        products = [end * factor for end in ends for factor in (self.start, 1.0)]
        return min(products), max(products)


def warmup_factor(share: FloatOrSchedule, progress: Progress) -> float:
    """Return min((epoch + 1)/(share·epochs), 1), by which the weight of a loss grows over a share of the run."""
    # max: a warm-up of at most one epoch, including 0, is complete in the first
    return min((progress.epoch + 1) / max(value_at(share, progress) * progress.epochs, 1.0), 1.0)

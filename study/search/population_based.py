"""Population-based search: the settings of a space file, and the check that an arm can be searched in this way."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from study.errors import InputError, check_positive, check_whole_number
from study.space.domains import Choice, Domain, find_domains, join_path, list_children

SMALLEST_POPULATION = 2
"""A single member has no other to copy; a command with --trials 1 may still try a study."""


@dataclass(frozen=True)
class PopulationBased:
    """Population-based training: settings change during training, and what the search finds is a schedule of each.

    All members train at once, or in turns where places are fewer, for `interval_epochs` at a time. At the end of an
    interval a member among the worst `quantile` of those that got there so far is replaced by a copy of one of the
    best `quantile`, weights and optimizer included. Each setting of the copy is then drawn again from its domain with
    probability `resample`; otherwise it moves up or down by `perturb` of its domain's width, on the domain's scale.
    By default the steps of all n intervals in random directions cover half of the width, 0.5/√n each.
    The best member's settings, interval by interval, are what confirm trials train from scratch.
    Raises InputError for a setting out of range.
    Source: Jaderberg et al. 2017, "Population based training of neural networks", with truncation selection; members
    are compared at equal epochs, as a schedule needs a parent of the same age. Perturbing by a share of the width,
    not by a factor, lets a setting leave 0.
    """

    population: int | None = None
    """Number of members. By default, and at most, the budget's `trials`: as many epochs as other searches may take."""
    interval_epochs: int = 5
    """Epochs between copies. Short intervals follow best settings that move fast, and score noisier comparisons."""
    quantile: float = 0.5
    """Share of the members that count as weak, and as strong: at least one of those that completed an interval."""
    perturb: float | None = None
    resample: float = 0.1

    def __post_init__(self) -> None:
        check_whole_number("PopulationBased: population", self.population, SMALLEST_POPULATION, or_none=True)
        check_whole_number("PopulationBased: interval_epochs", self.interval_epochs)
        check_positive("PopulationBased: quantile", self.quantile, "a number > 0 and ≤ 0.5", most=0.5)
        if self.perturb is not None:
            check_positive("PopulationBased: perturb", self.perturb, "a number > 0 and ≤ 1.0", most=1.0)
        if isinstance(self.resample, bool) or self.resample != 0:
            check_positive("PopulationBased: resample", self.resample, "a number ≥ 0 and ≤ 1.0", most=1.0)

    def count_members(self, trials: int) -> int:
        """Return the size of the population under a budget of `trials`."""
        return trials if self.population is None else min(self.population, trials)

    def count_strong(self, trials: int) -> int:
        """Return how many of all members may be copied at the end of an interval."""
        return max(1, int(self.count_members(trials) * self.quantile))

    def count_most_checkpoints(self, trials: int) -> int:
        """Return the largest number of checkpoints on disk while all members are within two intervals of each other.

        Each member has its own and that of a parent until its first epoch, the best of an interval theirs until all
        members have passed it.
        """
        return 2 * self.count_members(trials) + self.count_strong(trials)

    def count_intervals(self, epochs: int) -> int:
        """Return the number of intervals of a run; the last one is shorter if the interval does not divide the run."""
        return math.ceil(epochs / self.interval_epochs)

    def find_step(self, epochs: int) -> float:
        """Return the share of its domain's width by which a setting of a copy moves."""
        return 0.5 / math.sqrt(self.count_intervals(epochs)) if self.perturb is None else self.perturb

    def spread_values(self, values: list[float], epochs: int) -> list[float]:
        """Return a schedule's values, each for an equal share of a run, given one value per interval.

        One per epoch if the intervals are not equal.
        """
        if epochs % self.interval_epochs == 0:
            return values
        return [values[epoch // self.interval_epochs] for epoch in range(epochs)]


def check_population_based(settings: Any, arm: str, space: Any) -> None:
    """Check that every domain of an arm is a number that may change during training.

    Raises InputError naming the first domain that is a choice, or whose field takes no schedule.
    """
    if not isinstance(settings, PopulationBased):
        raise InputError(f"arm {arm!r}: search is {settings!r}; allowed are PopulationBased(…) and None")
    if next(find_domains(space), None) is None:
        raise InputError(f"arm {arm!r}: search is PopulationBased and there is nothing to search: add a domain")
    for name, why in _find_fixed(space):
        raise InputError(
            f"arm {arm!r}: PopulationBased changes settings during training, and {name} {why}: write a value there, or "
            "leave out search=, so that the study's sampler searches it"
        )


def _find_fixed(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name of each domain whose value cannot change during training, and why not."""
    if isinstance(tree, Choice):
        yield path or "the loss", "is a choice, which stays as it is"
        return
    accepting = _find_schedule_fields(tree)
    for key, item in list_children(tree):
        name = join_path(path, key)
        if not isinstance(item, Domain) or isinstance(item, Choice):
            yield from _find_fixed(item, name)
        elif key not in accepting:
            yield name, "takes no schedule: its field is not declared as FloatOrSchedule"


def _find_schedule_fields(tree: Any) -> set[Any]:
    """Return the names of the fields of a dataclass whose type admits an object with `value_at`."""
    if not dataclasses.is_dataclass(tree):
        return set()
    try:
        hints = typing.get_type_hints(type(tree))
    except NameError:  # a type that is imported for type checking alone
        return set()
    kinds = {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}
    return {name for name, options in kinds.items() if any(hasattr(option, "value_at") for option in options)}

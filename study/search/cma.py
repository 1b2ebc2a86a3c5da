"""CMA-ES proposals for one cell, from the trials told so far and nothing else.

The optimiser is built anew for every proposal and led through the ended trials in order of number, a population at a
time; only the proposal itself is drawn, from the trial's own seed. There is no state to keep, and none to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cmaes import CMA  # type: ignore[import-untyped]
from optuna.trial import FrozenTrial, TrialState

from study.errors import InputError
from study.space.domains import Choice, Integer, Uniform, Value, find_domains
from study.trial import Direction

Vector = npt.NDArray[np.float64]
Numbers = Mapping[str, Uniform | Integer]


@dataclass(frozen=True)
class CmaEs:
    """Covariance matrix adaptation over numeric domains, which it sees as a unit cube; whole numbers are rounded.

    It starts in the middle of the space, or at the arm's first point, with step size `sigma` as a share of each
    domain's width. `population` trials make a step; by default 4 + ⌊3·ln(domains)⌋. Within a population completed
    trials rank by score, then stopped ones by how far they came and by their last score, failed ones come last; one in
    which all failed is passed over. An arm with a `choice` is refused: a category has no direction.
    Source: Hansen 2016, "The CMA evolution strategy: a tutorial", as in the package cmaes.
    """

    sigma: float = 0.3
    population: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma, int | float) and 0 < self.sigma <= 1):
            raise InputError(f"CmaEs: sigma is {self.sigma!r}; allowed is a share of the domains' width, above 0 to 1")
        if self.population is not None and not (isinstance(self.population, int) and self.population >= 4):
            raise InputError(
                f"CmaEs: population is {self.population!r}; allowed is a whole number, at least 4, or None"
            )

    def propose(
        self,
        domains: Numbers,
        trials: Sequence[FrozenTrial],
        direction: Direction,
        start: Mapping[str, Value] | None,
        seed: int,
    ) -> dict[str, Value]:
        """The parameters of the next trial; `trials` are those that have ended, in order of number."""
        dimensions = len(domains)
        optimiser = CMA(
            mean=np.full(dimensions, 0.5) if start is None else to_unit_cube(domains, start),
            sigma=self.sigma,
            bounds=np.tile((0.0, 1.0), (dimensions, 1)),
            n_max_resampling=100,
            seed=seed,
            population_size=self.population or 4 + math.floor(3 * math.log(dimensions)),
            lr_adapt=False,
        )
        size = optimiser.population_size
        for first in range(0, len(trials) - size + 1, size):
            _tell_population(optimiser, domains, trials[first : first + size], direction)
        return from_unit_cube(domains, optimiser.ask())


def _tell_population(optimiser: CMA, domains: Numbers, population: Sequence[FrozenTrial], direction: Direction) -> None:
    if all(trial.state == TrialState.FAIL for trial in population):
        return
    ranked = sorted(population, key=lambda trial: _ranking_key(trial, direction))
    optimiser.tell([(to_unit_cube(domains, trial.params), float(rank)) for rank, trial in enumerate(ranked)])


def _ranking_key(trial: FrozenTrial, direction: Direction) -> tuple[float, ...]:
    if trial.state == TrialState.FAIL or trial.value is None:
        return (2.0,)
    score = -trial.value if direction == "max" else trial.value
    if trial.state == TrialState.COMPLETE:
        return 0.0, score
    return 1.0, -float(trial.last_step or 0), score


def select_numeric_domains(space: Any) -> dict[str, Uniform | Integer]:
    """The numeric domains of a space without choices, by name."""
    return {name: domain for name, domain in find_domains(space) if not isinstance(domain, Choice)}


# -- the unit cube -----------------------------------------------------------------------------------------------------


def to_unit_cube(domains: Numbers, params: Mapping[str, Value]) -> Vector:
    """A point as shares of its domains' widths, (D,) in [0, 1]."""
    shares = []
    for name, domain in domains.items():
        low, high = _scaled_bounds(domain)
        value = float(params[name])  # type: ignore[arg-type]
        shares.append(((math.log(value) if domain.log else value) - low) / (high - low))
    return np.array(shares)


def from_unit_cube(domains: Numbers, shares: Vector) -> dict[str, Value]:
    """The point at these shares."""
    return {name: _value(domain, share) for (name, domain), share in zip(domains.items(), shares.tolist(), strict=True)}


def _value(domain: Uniform | Integer, share: float) -> float | int:
    low, high = _scaled_bounds(domain)
    place = low + share * (high - low)
    value = math.exp(place) if domain.log else place
    inside = min(max(value, domain.low), domain.high)
    return round(inside) if isinstance(domain, Integer) else inside


def _scaled_bounds(domain: Uniform | Integer) -> tuple[float, float]:
    # half a step more at both ends of whole numbers: the outermost ones get as much room as the others
    half = 0.5 if isinstance(domain, Integer) else 0.0
    low, high = domain.low - half, domain.high + half
    return (math.log(low), math.log(high)) if domain.log else (low, high)

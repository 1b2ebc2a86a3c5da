"""CMA-ES proposals for one cell, as a pure function of the finished trials and the next trial's seed.

Each proposal builds a new optimizer and feeds it the finished trials in order of their number, one population at a
time; only the proposal itself is random. So there is no optimizer state to save or to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, TrialState

from study.search.samplers import CmaEs
from study.space.domains import Choice, Integer, Uniform, Value, find_domains
from study.trial import Direction

if TYPE_CHECKING:
    from cmaes import CMA  # type: ignore[import-untyped]

Vector = npt.NDArray[np.float64]
NumericDomains = Mapping[str, Uniform | Integer]


def propose_by_cma(
    settings: CmaEs,
    domains: NumericDomains,
    trials: Sequence[FrozenTrial],
    direction: Direction,
    start: Mapping[str, Value] | None,
    seed: int,
) -> dict[str, Value]:
    """Return the parameters of the next trial, given the finished `trials` in order of their number."""
    from cmaes import CMA  # imports scipy.stats: a second of every command that no other sampler needs

    dimensions = len(domains)
    optimizer = CMA(
        mean=_place_start(domains, start or {}),
        sigma=settings.sigma,
        bounds=np.tile((0.0, 1.0), (dimensions, 1)),
        n_max_resampling=100,
        seed=seed,
        population_size=settings.population or 4 + math.floor(3 * math.log(dimensions)),
        lr_adapt=False,
    )
    size = optimizer.population_size
    for first in range(0, len(trials) - size + 1, size):
        _tell_population(optimizer, domains, trials[first : first + size], direction)
    return from_unit_cube(domains, optimizer.ask())


def _place_start(domains: NumericDomains, start: Mapping[str, Value]) -> Vector:
    """Return the start in the unit cube, (D,): in the middle of each domain that `start` leaves out."""
    given = {name: domain for name, domain in domains.items() if name in start}
    shares = dict(zip(given, to_unit_cube(given, start).tolist(), strict=True))
    return np.array([shares.get(name, 0.5) for name in domains])


def select_numeric_domains(space: Any) -> dict[str, Uniform | Integer]:
    """Return the uniform and integer domains of a search space, by name."""
    return {name: domain for name, domain in find_domains(space) if not isinstance(domain, Choice)}


def _tell_population(
    optimizer: CMA, domains: NumericDomains, population: Sequence[FrozenTrial], direction: Direction
) -> None:
    if all(trial.state == TrialState.FAIL for trial in population):
        return
    ranked = sorted(population, key=lambda trial: _ranking_key(trial, direction))
    optimizer.tell([(to_unit_cube(domains, trial.params), float(rank)) for rank, trial in enumerate(ranked)])


def _ranking_key(trial: FrozenTrial, direction: Direction) -> tuple[float, ...]:
    """Return a key that sorts complete trials by score, then pruned ones by epochs and score, then failed ones."""
    if trial.state == TrialState.FAIL or trial.value is None:
        return (2.0,)
    score = -trial.value if direction == "max" else trial.value
    if trial.state == TrialState.COMPLETE:
        return 0.0, score
    return 1.0, -float(trial.last_step or 0), score


# -- the unit cube -----------------------------------------------------------------------------------------------------


def to_unit_cube(domains: NumericDomains, params: Mapping[str, Value]) -> Vector:
    """Map parameters to shares of their domains' widths: (D,) in [0, 1]."""
    shares = []
    for name, domain in domains.items():
        low, high = _scaled_bounds(domain)
        value = float(params[name])  # type: ignore[arg-type]
        shares.append(((math.log(value) if domain.log else value) - low) / (high - low))
    return np.array(shares)


def from_unit_cube(domains: NumericDomains, shares: Vector) -> dict[str, Value]:
    """Map shares (D,) of the domains' widths to parameters; whole numbers are rounded."""
    return {
        name: _value_at(domain, share) for (name, domain), share in zip(domains.items(), shares.tolist(), strict=True)
    }


def _value_at(domain: Uniform | Integer, share: float) -> float | int:
    low, high = _scaled_bounds(domain)
    scaled = low + share * (high - low)
    value = math.exp(scaled) if domain.log else scaled
    inside = min(max(value, domain.low), domain.high)
    return round(inside) if isinstance(domain, Integer) else inside


def _scaled_bounds(domain: Uniform | Integer) -> tuple[float, float]:
    # whole numbers get half a step more at both ends, so that the outermost ones are as wide as the others
    half = 0.5 if isinstance(domain, Integer) else 0.0
    low, high = domain.low - half, domain.high + half
    return (math.log(low), math.log(high)) if domain.log else (low, high)

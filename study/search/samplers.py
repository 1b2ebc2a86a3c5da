"""Samplers and warm start: the search settings of a space file, each with all its arguments written out.

Tpe and Random are Optuna's samplers, Grid lists its points in advance, CmaEs proposes by study/search/cma.py. Optuna
is imported when a sampler is built: a space file needs only the settings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import InputError, check_positive, check_whole_number
from study.identity import LOCATION
from study.space.domains import Choice, find_domains
from study.space.params import Params, build_grid, count_grid_points, count_points, is_same_point

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Tpe:
    """Tree-structured Parzen estimator, with every argument that Optuna 5 keeps: its defaults may change.

    It looks back on the last 400 trials and the best 25 before them, so that the cost of a proposal is bounded; see
    study/search/tpe.py.
    Source: Bergstra et al. 2011; multivariate and grouped form by Falkner et al. 2018 as in Optuna.
    """

    startup_trials: int = 8
    """Number of finished random trials before the first estimate."""
    candidates: int = 24
    """Number of candidates drawn per proposal, of which the most promising is proposed."""
    multivariate: bool = True
    group: bool = True
    """Estimate parameters jointly that occur together, for options of a choice with settings of their own."""
    constant_liar: bool = True
    """Count running trials as bad ones, which keeps concurrent trials apart."""

    def __post_init__(self) -> None:
        for name in ("startup_trials", "candidates"):
            check_whole_number(f"Tpe: {name}", getattr(self, name))
        for name in ("multivariate", "group", "constant_liar"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"Tpe: {name} is {getattr(self, name)!r}; allowed are True and False")
        if self.group and not self.multivariate:
            raise InputError("Tpe: group is True and multivariate False, which group needs: set both, or neither")

    def build(self, seed: int, ended: int | None = None) -> BaseSampler:
        """Return Optuna's sampler for one proposal; with `ended`, from the first `ended` trials and no other's end."""
        from study.search.tpe import BoundedTpe

        return BoundedTpe(
            ended=ended,
            n_startup_trials=self.startup_trials,
            n_ei_candidates=self.candidates,
            seed=seed,
            multivariate=self.multivariate,
            group=self.group,
            constant_liar=self.constant_liar,
        )


@dataclass(frozen=True)
class Random:
    """Independent random draws: the baseline of search methods."""

    def build(self, seed: int) -> BaseSampler:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


@dataclass(frozen=True)
class Grid:
    """Every combination of the domains' values once, in an order shuffled by seed.

    A choice contributes one grid per option; an integer domain each of its values if there are at most `points`, and
    any other domain `points` values evenly spaced on its scale, both ends included. A cell runs as many trials as its
    grid has points, an arm's first points included; a smaller budget is refused.
    """

    points: int = 5

    def __post_init__(self) -> None:
        check_whole_number("Grid: points", self.points, 2)

    def list_points(self, space: Any, first: Sequence[Params], seed: int) -> list[Params]:
        """Return the grid's points without those of `first`, shuffled: successive halving needs a fair mix."""
        points: list[Params] = [
            point for point in build_grid(space, self.points) if not any(is_same_point(point, known) for known in first)
        ]
        random.Random(seed).shuffle(points)
        return points


@dataclass(frozen=True)
class CmaEs:
    """Covariance matrix adaptation over numeric domains, scaled to the unit cube; whole numbers are rounded.

    It starts in the middle of the space, or at the arm's first point, with step size `sigma` as a share of each
    domain's width. `population` trials make one update; by default 4 + ⌊3·ln(domains)⌋. Within a population complete
    trials rank by score, then pruned ones by epochs and last score, then failed ones; a population of failed trials is
    skipped. An arm with a `choice` is refused: categories have no direction.
    Source: Hansen 2016, "The CMA evolution strategy: a tutorial", as in the package cmaes.
    """

    sigma: float = 0.3
    population: int | None = None

    def __post_init__(self) -> None:
        check_positive("CmaEs: sigma", self.sigma, "a share of the domains' width, above 0 to 1", most=1)
        check_whole_number("CmaEs: population", self.population, 4, or_none=True)


Sampler = Tpe | Random | Grid | CmaEs


@dataclass(frozen=True)
class WarmStart:
    """The best configurations of another study, tried first; study/engine/warm_start.py selects them.

    Only configurations carry over: every score in a study is measured in that study.
    """

    path: str | Path = field(metadata=LOCATION)
    """The other study's folder, relative to the working directory. Read once, when this study begins."""
    points: int = 3
    """Maximum number of configurations per cell, in addition to the arm's own first points."""

    def __post_init__(self) -> None:
        check_whole_number("warm_start: points", self.points, 1)


def check_sampler(sampler: Sampler, arm: str, space: Any, first: Sequence[Params], trials: int) -> None:
    """Check that `sampler` can search this arm within a budget of `trials`.

    Raises InputError if it cannot.
    """
    if len(first) > trials:
        raise InputError(
            f"arm {arm!r} has {len(first)} first points, budget.trials is {trials}: raise it, or leave some out"
        )
    if isinstance(sampler, CmaEs):
        _check_numeric(arm, space)
    if isinstance(sampler, Grid):
        _check_grid(sampler, arm, space, first, trials)


def _check_numeric(arm: str, space: Any) -> None:
    choices = [name for name, domain in find_domains(space) if isinstance(domain, Choice)]
    if choices:
        raise InputError(
            f"arm {arm!r}: CmaEs cannot search the choice {choices[0]!r}; write an arm for each option, "
            "or use Tpe, Random or Grid"
        )


def _check_grid(sampler: Grid, arm: str, space: Any, first: Sequence[Params], trials: int) -> None:
    size = count_grid_points(space, sampler.points)
    # the points of a grid above the budget are not listed: there may be millions
    extra = count_search_trials(sampler, space, first, trials) - size if size <= trials else 0
    if size + extra > trials:
        raise InputError(
            f"the grid of arm {arm!r} has {size} points{f' and {extra} first ones outside it' if extra else ''}, "
            f"budget.trials is {trials}: raise it to {size + extra}, or search less, by Grid(points=…) or the domains"
        )


def count_search_trials(sampler: Sampler, space: Any, first: Sequence[Params], trials: int) -> int:
    """Return the number of search trials of a budget of `trials`: at most that of the grid's or the space's points."""
    if isinstance(sampler, Grid):
        return len(first) + len(sampler.list_points(space, first, 0))
    return int(min(trials, count_points(space)))


def list_points_in_advance(
    sampler: Sampler, space: Any, first: Sequence[Params], trials: int, seed: int
) -> list[Params]:
    """Return the points, after `first`, that are tried whatever the results: a grid, or a space with few points.

    A space with no more points than there are trials is tried point by point, since a sampler would repeat some.
    """
    if isinstance(sampler, Grid):
        return sampler.list_points(space, first, seed)
    points = count_points(space)
    return Grid(max(2, int(points))).list_points(space, first, seed) if points <= trials else []

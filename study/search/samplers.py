"""What a space file may say of its searches: samplers, each with all its arguments written out, and a warm start.

Grid lists its points beforehand, CmaEs (study/search/cma.py) proposes from the trials told; Tpe and Random are
Optuna's.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from study.errors import InputError
from study.identity import LOCATION
from study.search.cma import CmaEs
from study.space.domains import Choice, find_domains
from study.space.params import Params, build_grid, count_grid_points, is_same_point

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Tpe:
    """Tree-structured Parzen estimator; every argument that Optuna 5 still takes is written out: its defaults move.

    Source: Bergstra et al. 2011; multivariate and grouped form by Falkner et al. 2018 as in Optuna.
    """

    startup_trials: int = 8
    """Trials that ended, drawn at random, before the first is estimated."""
    candidates: int = 24
    """Drawn for each proposal; the most promising one is proposed."""
    multivariate: bool = True
    group: bool = True
    """Parameters that occur together are estimated together; for options of a choice with settings of their own."""
    constant_liar: bool = True
    """Trials under way count as bad ones, so that trials side by side keep apart."""

    def __post_init__(self) -> None:
        for name in ("startup_trials", "candidates"):
            _check_whole("Tpe", name, getattr(self, name), 1)
        for name in ("multivariate", "group", "constant_liar"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"Tpe: {name} is {getattr(self, name)!r}; allowed are True and False")
        if self.group and not self.multivariate:
            raise InputError("Tpe: group is True and multivariate False; allowed is group only with multivariate")

    def build(self, seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=self.startup_trials,
            n_ei_candidates=self.candidates,
            seed=seed,
            multivariate=self.multivariate,
            group=self.group,
            constant_liar=self.constant_liar,
        )


@dataclass(frozen=True)
class Random:
    """Independent draws: the plainest baseline of a search."""

    def build(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


@dataclass(frozen=True)
class Grid:
    """Every combination of the domains' values once, in an order drawn by seed.

    A choice gives each option with a grid of its own, an integer domain each value if there are at most `points`, and
    any other `points` values evenly on its scale, both ends among them. A cell runs as many trials as its grid has
    points, those to try first included; a budget of fewer is refused.
    """

    points: int = 5

    def __post_init__(self) -> None:
        _check_whole("Grid", "points", self.points, 2)

    def list_points(self, space: Any, first: Sequence[Params], seed: int) -> list[Params]:
        """The grid's points without those of `first`, shuffled: successive halving needs a fair mix."""
        rest: list[Params] = [
            p for p in build_grid(space, self.points) if not any(is_same_point(p, known) for known in first)
        ]
        random.Random(seed).shuffle(rest)
        return rest


@dataclass(frozen=True)
class WarmStart:
    """Another study's best configurations, tried first; study/engine/warm_start.py says which.

    Configurations carry over, scores never do: every score in a study is measured in that study.
    """

    path: str | Path = field(metadata=LOCATION)
    """The earlier study's folder, from the working directory on. It is read once, when this study begins."""
    points: int = 3
    """At most so many per cell, after the arm's own first ones."""

    def __post_init__(self) -> None:
        _check_whole("warm_start", "points", self.points, 1)


Sampler = Tpe | Random | Grid | CmaEs


def check_sampler(sampler: Sampler, arm: str, space: Any, first: Sequence[Params], trials: int) -> None:
    """Raises InputError if `sampler` cannot search this arm, or not within so many trials."""
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
    # a grid that is too large is not laid out: it may have millions of points
    beside = count_search_trials(sampler, space, first, trials) - size if size <= trials else 0
    if size + beside > trials:
        raise InputError(
            f"the grid of arm {arm!r} has {size} points{f' and {beside} first ones beside it' if beside else ''}, "
            f"budget.trials is {trials}: raise it to {size + beside}, or search less, by Grid(points=…) or the domains"
        )


def count_search_trials(sampler: Sampler, space: Any, first: Sequence[Params], trials: int) -> int:
    """How many trials a search takes of the `trials` it may: all, or as many as its grid has points."""
    return len(first) + len(sampler.list_points(space, first, 0)) if isinstance(sampler, Grid) else trials


def _check_whole(owner: str, name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{owner}: {name} is {value!r}; allowed is a whole number, at least {least}")

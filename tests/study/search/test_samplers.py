"""Samplers: their settings, and grids that exceed the budget."""

from __future__ import annotations

from typing import Any

import pytest

from study import Arm, Budget, CmaEs, Grid, Tpe, uniform
from study.errors import InputError
from study.space.params import build_grid
from tests.study.search.test_searcher import CONDITIONAL
from tests.study.toy import BASELINE, toy
from trainables.tasks.simulated import Extra, SimulatedLoss


def test_grid_search_is_shuffled_by_seed() -> None:
    orders = [Grid(points=4).list_points(CONDITIONAL, [], seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != build_grid(CONDITIONAL, 4)


@pytest.mark.parametrize(
    ("trials", "first", "message"),
    [
        (10, (), r"the grid of arm 'searched' has 20 points, budget.trials is 10: raise it to 20"),
        (20, (0.35,), r"has 20 points and 1 first ones outside it, budget.trials is 20: raise it to 21"),
    ],
)
def test_grid_larger_than_the_budget_is_refused(trials: int, first: tuple[float, ...], message: str) -> None:
    losses = tuple(SimulatedLoss(x=x, fault=CONDITIONAL.fault) for x in first)
    with pytest.raises(InputError, match=message) as error:
        toy((BASELINE, Arm("searched", CONDITIONAL, first=losses)), sampler=Grid(4), budget=Budget(trials, 2, 1))
    assert "\n" not in str(error.value)


def test_grid_of_millions_is_refused_at_once() -> None:
    wide = SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1), gain=uniform(0, 1), extra=Extra(uniform(0, 1)))
    with pytest.raises(InputError, match="has 100000000 points"):
        toy((BASELINE, Arm("searched", wide)), sampler=Grid(100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tpe(startup_trials=0), "Tpe: startup_trials is 0; allowed is a whole number, at least 1"),
        (lambda: Tpe(candidates=2.5), "Tpe: candidates is 2.5"),  # type: ignore[arg-type]
        (lambda: Tpe(constant_liar=1), "Tpe: constant_liar is 1; allowed are True and False"),  # type: ignore[arg-type]
        (lambda: Tpe(multivariate=False), "group is True and multivariate False"),
        (lambda: Grid(points=1), "Grid: points is 1; allowed is a whole number, at least 2"),
        (lambda: CmaEs(sigma=0), "CmaEs: sigma is 0"),
        (lambda: CmaEs(sigma=float("nan")), "CmaEs: sigma is nan"),
        (lambda: CmaEs(population=3), "CmaEs: population is 3; allowed is a whole number, at least 4"),
    ],
)
def test_bad_sampler_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_tpe_passes_every_argument_to_optuna() -> None:
    built = Tpe(startup_trials=3, candidates=7, multivariate=True, group=False, constant_liar=False).build(5)
    assert (built._n_startup_trials, built._n_ei_candidates) == (3, 7)  # type: ignore[attr-defined]
    assert (built._multivariate, built._group, built._constant_liar) == (True, False, False)  # type: ignore[attr-defined]

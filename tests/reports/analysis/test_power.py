"""Power: how often a study of n seeds finds an effect, and the seeds a verdict takes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from reports.analysis import power, sign_tests


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (4, 8), (6, 8), (7, 9), (0, 6)])
def test_seeds_to_decide_is_the_fewest_that_can(comparisons: int, seeds: int) -> None:
    assert power.seeds_to_decide(comparisons) == seeds
    assert power.smallest_p(seeds) * comparisons <= 0.05
    assert comparisons == 0 or power.smallest_p(seeds - 1) * comparisons > 0.05


def test_seeds_needed_equals_the_textbook_sample_size() -> None:
    # Cohen 1988: a paired t test with d = 0.5, two-sided 5 %, power 0.8 takes 34 pairs; d = 0.8 takes 15.
    assert power.seeds_needed(0.5, 1.0) == 34
    assert power.seeds_needed(-0.8, 1.0) == 15


@pytest.mark.parametrize(("effect", "seeds", "by_t"), [(1.0, 11, 10), (1.3, 8, 7), (1.6, 7, 6)])
def test_seeds_needed_knows_that_few_flips_find_less_than_the_t_test(effect: float, seeds: int, by_t: int) -> None:
    t_power = power._compute_t_power(effect, np.arange(6, 40), 0.05)
    assert 6 + int(np.argmax(t_power >= 0.8)) == by_t
    assert power.seeds_needed(effect, 1.0) == seeds


@pytest.mark.parametrize("effect", [0.8, 1.5, 2.5])
def test_power_with_the_fewest_seeds_is_the_chance_that_all_signs_agree(effect: float) -> None:
    # With six pairs p ≤ 0.05 only if all differences have one sign: Φ(d)⁶ + Φ(−d)⁶.
    expected = stats.norm.cdf(effect) ** 6 + stats.norm.cdf(-effect) ** 6
    assert power.estimate_power(effect, 1.0, 6) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("effect", "n", "comparisons"), [(1.3, 8, 1), (1.0, 11, 1), (1.5, 9, 3), (1.2, 14, 6)])
def test_power_is_how_often_the_test_itself_finds_the_effect(effect: float, n: int, comparisons: int) -> None:
    draws = np.random.default_rng(5).normal(effect, 1.0, (600, n))
    found = np.mean([sign_tests.compute_sign_flip_p(row) <= 0.05 / comparisons for row in draws])
    assert power.estimate_power(effect, 1.0, n, comparisons) == pytest.approx(found, abs=0.05)  # three standard errors


@pytest.mark.parametrize("effect", [0.05, 0.5, 2.0, 10.0])
def test_power_of_the_t_test_is_that_of_scipy(effect: float) -> None:
    n = np.arange(2, 200)
    expected = stats.nct.sf(stats.t.ppf(0.995, n - 1), n - 1, effect * np.sqrt(n))
    found = power._compute_t_power(effect, n, 0.01)
    assert found == pytest.approx(np.nan_to_num(expected, nan=1.0), abs=1e-12)


def test_power_is_continuous_where_simulation_ends() -> None:
    last, first = (power.estimate_power(0.9, 1.0, power.MAX_SIMULATED_SEEDS + more) for more in (0, 1))
    assert 0 < first - last < 0.06


def test_power_without_an_effect_is_no_more_than_the_level() -> None:
    assert power.estimate_power(0.0, 1.0, 8) <= 0.06
    assert power.estimate_power(0.0, 1.0, 5) == 0


def test_power_of_many_comparisons_has_no_seeds_to_decide_with() -> None:
    assert power.estimate_power(3.0, 1.0, 6, comparisons=4) == 0


def test_seeds_needed_at_the_edges() -> None:
    assert power.seeds_needed(5.0, 0.1) == power.seeds_to_decide(1)
    assert power.seeds_needed(5.0, 0.0, comparisons=4) == 8
    assert power.seeds_needed(0.0, 1.0) is None
    assert power.seeds_needed(0.001, 1.0) is None
    more = power.seeds_needed(0.5, 1.0, comparisons=4)
    assert more is not None
    assert more > 34

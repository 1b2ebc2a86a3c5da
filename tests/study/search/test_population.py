"""The population of a cell: who copies whom, what is explored, and which checkpoints are kept."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from study import Configuration, PopulationBased, choice, integer, log_uniform, uniform
from study.errors import InputError
from study.search.population import Population
from study.search.population_based import check_population_based
from study.trial import TrialState
from trainables import DKD, DataAdaptiveTemperature, Recipe, Staircase
from trainables.tasks.moving import MovingLoss

SPACE = MovingLoss(x=uniform(0, 1), y=uniform(0.2, 0.4))
COMPLETE, FAILED = TrialState.COMPLETE, TrialState.FAILED


def make_population(members: int = 8, epochs: int = 20, lag: int | None = None, **settings: Any) -> Population:
    return Population(PopulationBased(**settings), SPACE, "max", members, epochs, 7, lag)


def start(population: Population, number: int) -> str:
    """Start a link, and return its parent's id."""
    params, link = population.decide(number)
    population.start(number, params or {"x": 0.5 + number / 100, "y": 0.3}, link)
    return link.parent


def train_interval(population: Population, scores: list[float | None]) -> list[str]:
    """Train one interval of all members to these scores, None for a failure; return the parents' ids."""
    first, parents = len(population.links), []
    for number in range(first, first + len(scores)):
        parents.append(start(population, number))
    for number, score in enumerate(scores, first):
        population.end(number, f"t{number}", FAILED if score is None else COMPLETE, score)
    return parents


def test_weak_members_become_copies_of_strong_ones_and_all_others_go_on() -> None:
    population = make_population(resample=0.0, perturb=0.1)
    assert train_interval(population, [0.3, 0.9, 0.1, 0.5, 0.8, 0.2, 0.4, 0.6]) == [""] * 8
    parents = train_interval(population, [0.5] * 8)
    assert [parents[n] for n in (0, 1, 3, 4, 6, 7)] == ["t0", "t1", "t3", "t4", "t6", "t7"]
    assert {parents[2], parents[5]} <= {"t1", "t4"}
    for weak in (10, 13):
        one = population.links[weak]
        parent = population.links[int(one.link.parent[1:])]
        assert abs(one.params["x"] - parent.params["x"]) == pytest.approx(0.1)  # of the width
        assert abs(one.params["y"] - parent.params["y"]) == pytest.approx(0.02)
        assert (one.link.start_epoch, one.link.end_epoch) == (5, 10)


def test_worst_of_a_small_population_becomes_a_copy_of_the_best_once_all_are_there() -> None:
    population = make_population(members=3)
    assert train_interval(population, [0.2, 0.1, 0.3]) == [""] * 3
    assert train_interval(population, [0.5] * 3) == ["t0", "t2", "t2"]
    early = make_population(members=3)
    for number in range(3):
        start(early, number)
    for number, score in ((0, 0.2), (1, 0.1)):
        early.end(number, f"t{number}", COMPLETE, score)
    assert start(early, 4) == "t1"


def test_lower_is_better_where_the_metric_says_so() -> None:
    population = Population(PopulationBased(), SPACE, "min", 4, 10, 7)
    train_interval(population, [0.1, 0.2, 0.3, 0.4])
    assert start(population, 7) == "t0"


def test_explored_settings_stay_in_their_domains_and_are_drawn_again_as_often_as_given() -> None:
    spaces = MovingLoss(x=log_uniform(0.01, 1), y=integer(0, 1))
    drawn = []
    for seed in range(400):
        population = Population(PopulationBased(perturb=0.5, resample=0.3), spaces, "max", 4, 10, seed)
        for number in range(4):
            population.start(number, {"x": 0.1, "y": 1}, population.decide(number)[1])
            population.end(number, f"t{number}", COMPLETE, -number)
        params, _ = population.decide(7)
        assert params is not None
        assert 0.01 <= params["x"] <= 1
        assert params["y"] in (0, 1)
        drawn.append(params["x"] not in (pytest.approx(0.01), pytest.approx(1)))
    assert sum(drawn) / 400 == pytest.approx(0.3, abs=0.07)


def test_a_member_that_is_first_at_an_interval_does_not_wait() -> None:
    population = make_population()
    for number in range(8):
        start(population, number)
    assert population.find_next() is None
    population.end(5, "t5", COMPLETE, 0.1)
    assert population.find_next() == 13
    assert start(population, 13) == "t5"  # alone, it is not weak


def test_members_of_the_earliest_interval_go_first() -> None:
    population = make_population(members=3)
    assert population.find_next() == 0
    start(population, 0)
    population.end(0, "t0", COMPLETE, 0.1)
    assert population.find_next() == 1


def test_failed_member_copies_a_strong_one_as_soon_as_there_is_one() -> None:
    population = make_population(members=2)
    start(population, 0)
    start(population, 1)
    population.end(0, "t0", FAILED, None)
    assert population.find_next() is None
    population.end(1, "t1", COMPLETE, 0.5)
    assert population.find_next() == 2
    assert start(population, 2) == "t1"


def test_search_ends_where_no_member_is_left() -> None:
    population = make_population(members=2)
    train_interval(population, [None, None])
    assert population.done
    assert population.best_number is None


def test_schedule_of_the_best_chain_follows_the_copies() -> None:
    population = make_population(members=2, epochs=10, quantile=0.5, resample=0.0)
    train_interval(population, [0.5, 0.1])
    assert train_interval(population, [0.6, 0.7]) == ["t0", "t0"]
    assert population.done
    assert population.best_number == 3
    assert population.list_chain(3) == [0, 3]
    second = population.links[3].params
    assert population.build_schedule(3) == {"x": [0.5, second["x"]], "y": [0.3, second["y"]]}
    assert population.build_schedule(2) == {"x": 0.5, "y": 0.3}


def test_schedule_has_a_value_an_epoch_if_the_interval_does_not_divide_the_run() -> None:
    settings = PopulationBased(interval_epochs=3)
    assert settings.count_intervals(7) == 3
    assert settings.spread_values([1.0, 2.0, 3.0], 7) == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]
    assert settings.spread_values([1.0, 2.0, 3.0], 9) == [1.0, 2.0, 3.0]


def run_in_random_order(lag: int | None, rng: random.Random, failing: float = 0.2) -> dict[int, str]:
    """Return the parent of each link, of links whose score is a function of their number and that end in any order."""
    population, running = make_population(members=6, epochs=30, lag=lag), list[int]()
    while True:
        while len(running) < 4 and (number := population.find_next()) is not None:
            start(population, number)
            running.append(number)
        if not running:
            return {number: one.link.parent for number, one in population.links.items()}
        number = running.pop(rng.randrange(len(running)))
        drawn = random.Random(number)
        failed = drawn.random() < failing
        population.end(number, f"t{number}", FAILED if failed else COMPLETE, None if failed else drawn.random())
        population.release_checkpoints()


@pytest.mark.parametrize("lag", [1, 2, 8, 20])
def test_with_a_lag_no_decision_depends_on_which_link_ends_first(lag: int) -> None:
    (first, *others) = (run_in_random_order(lag, random.Random(seed)) for seed in range(20))
    assert all(other == first for other in others)
    assert any(parent not in ("", f"t{number - 6}") for number, parent in first.items()), "none was copied"
    assert len(first) == 36
    assert len({str(run_in_random_order(None, random.Random(seed))) for seed in range(20)}) > 1


# -- checkpoints -------------------------------------------------------------------------------------------------------


def simulate(
    members: int, places: int, rng: random.Random, failing: float = 0.0, lag: int | None = None
) -> Iterator[tuple[Population, set[str]]]:
    """Run a population on some places; yield it after each event with the ids whose checkpoint is on disk."""
    population, running, disk = make_population(members, epochs=30, lag=lag), list[int](), set[str]()
    while True:
        while len(running) < places and (number := population.find_next()) is not None:
            parent = start(population, number)
            assert not parent or parent in disk, "its parent's checkpoint is gone"
            running.append(number)
            disk.add(f"t{number}")
        if not running:
            return
        number = rng.choice(running)
        one = population.links[number]
        if not one.has_epoch:
            assert not one.link.parent or one.link.parent in disk, "it may have to be copied again"
            population.note_epoch(number)
        else:
            running.remove(number)
            failed = rng.random() < failing
            population.end(number, f"t{number}", FAILED if failed else COMPLETE, None if failed else rng.random())
        disk -= {released.trial_id for released in population.release_checkpoints()}
        yield population, disk


@pytest.mark.parametrize("lag", [None, 3, 8])
@pytest.mark.parametrize("failing", [0.0, 0.2])
@pytest.mark.parametrize(("members", "places"), [(8, 1), (8, 2), (8, 8), (2, 2), (1, 1)])
def test_no_checkpoint_is_missing_and_none_is_left(members: int, places: int, failing: float, lag: int | None) -> None:
    for seed in range(20):
        most = 0
        for population, disk in simulate(members, places, random.Random(seed), failing, lag):
            strong = max(1, members // 4)
            most = max(most, len(disk) - strong * (population.intervals - 1))
        assert most <= members + places
        assert disk == set() or population.best_number is None


def test_checkpoints_on_few_places_are_little_more_than_one_a_member() -> None:
    assert max(len(disk) for seed in range(20) for _, disk in simulate(8, 2, random.Random(seed))) <= 8 + 2 + 2


def test_release_does_not_look_at_all_links_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, whole = list[int](), Population._is_needed
    monkeypatch.setattr(Population, "_is_needed", lambda self, number: looks.append(number) or whole(self, number))
    most, before, links = 0, 0, 0
    for population, _ in simulate(40, 40, random.Random(0)):
        most, before, links = max(most, len(looks) - before), len(looks), len(population.links)
    assert links == 40 * 6
    assert most <= 3 * 40


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "population is 1; allowed is a whole number, at least 2"),
        ({"population": 2.5}, "population is 2.5"),
        ({"interval_epochs": 0}, "interval_epochs is 0; allowed is a whole number, at least 1"),
        ({"quantile": 0.6}, "quantile is 0.6; allowed is a number > 0 and ≤ 0.5"),
        ({"quantile": 0}, "quantile is 0"),
        ({"perturb": True}, "perturb is True"),
        ({"resample": 1.5}, "resample is 1.5; allowed is a number ≥ 0 and ≤ 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"PopulationBased: {message}"):
        PopulationBased(**settings)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (DKD(temperature=Staircase(uniform(1, 2), 3.0, 2)), "temperature.start takes no schedule"),
        (DKD(temperature=choice(1.0, 2.0)), "temperature is a choice"),
        (DKD(standardise=choice(True, False)), "standardise is a"),
        (Configuration(DKD(), Recipe(batch_size=integer(8, 16))), "recipe.batch_size takes no schedule"),
        (DKD(), "there is nothing to search"),
    ],
)
def test_domains_that_cannot_change_during_training_are_refused(space: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_population_based(PopulationBased(), "dynamic", space)


def test_numbers_of_losses_add_ons_and_learning_rates_can_change_during_training() -> None:
    adaptive = DataAdaptiveTemperature(upper_change=uniform(-0.1, 0.1))
    loss = DKD(temperature=log_uniform(1, 8), pruning=uniform(0, 0.6), adaptive=adaptive)
    check_population_based(
        PopulationBased(), "dynamic", Configuration(loss, Recipe(learning_rate=log_uniform(0.01, 1)))
    )

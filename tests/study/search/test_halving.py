"""Successive halving: the rungs, the trials that pass, and equal decisions in a replay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import SuccessiveHalving, choice, integer, uniform
from study.errors import InputError
from study.search.halving import Rungs, find_first_judged_epoch, searches_schedules
from trainables import DKD, KD, Cosine, Staircase


def test_rungs_are_powers_of_the_reduction_in_the_first_half() -> None:
    assert SuccessiveHalving(2, 3).list_rungs(0, 80) == [2, 6, 18]  # 54 would save a third of the epochs at most
    assert SuccessiveHalving(2, 3).list_rungs(1, 80) == [6, 18]
    assert SuccessiveHalving(1, 3).list_rungs(0, 9) == [1, 3]
    assert SuccessiveHalving(8, 3).list_rungs(0, 25) == [8]
    assert SuccessiveHalving(1, 2).list_rungs(0, 8) == [1, 2, 4]


def test_only_the_best_third_continues() -> None:
    rungs = Rungs(SuccessiveHalving(1, 3), "max", 9, seed=0)
    verdicts = [rungs.report(n, 1, value) for n, value in enumerate([0.5, 0.4, 0.6, 0.55, 0.61, 0.605])]
    # of six, two pass: 0.61, and 0.605 as the second best
    assert [verdict is None for verdict in verdicts] == [True, False, True, False, True, True]
    assert verdicts[1] == "halving at epoch 1: 0.4, needed 0.5 among 2 trials"


def test_smaller_is_better_for_a_metric_to_minimise() -> None:
    rungs = Rungs(SuccessiveHalving(1, 2), "min", 9, seed=0)
    assert rungs.report(0, 1, 0.5) is None
    assert rungs.report(1, 1, 0.6) is not None
    assert rungs.report(2, 1, 0.4) is None


def test_no_trial_stops_between_rungs() -> None:
    rungs = Rungs(SuccessiveHalving(2, 3), "max", 80, seed=0)
    rungs.report(0, 2, 1.0)
    assert all(rungs.report(1, epoch, 0.0) is None for epoch in (1, 3, 4, 5, 80))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 3))
def test_replay_decides_the_same(values: list[float], brackets: int) -> None:
    rule = SuccessiveHalving(1, 3, brackets)
    first, again = Rungs(rule, "max", 9, seed=5), Rungs(rule, "max", 9, seed=5)
    reports = [(n, epoch, value) for n, value in enumerate(values) for epoch in (1, 3)]
    assert [first.report(*report) for report in reports] == [again.report(*report) for report in reports]


def test_brackets_spread_trials_over_first_rungs() -> None:
    rungs = Rungs(SuccessiveHalving(1, 3, brackets=3), "max", 80, seed=0)
    best = [rungs.report(n, 1, 1.0) for n in range(60)]
    judged = [n for n in range(60) if rungs.report(n, 1, 0.0) is not None]
    assert best == [None] * 60
    assert 5 < len(judged) < 40  # a third of the trials has its first rung here


@pytest.mark.parametrize("setting", [{"min_epochs": 0}, {"reduction": 1}, {"brackets": 0}])
def test_bad_rule_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        SuccessiveHalving(**setting)


LP = DKD(pruning=Staircase(uniform(0, 0.3), uniform(0.1, 0.7), stages=integer(1, 8)))


@pytest.mark.parametrize(("stages", "judged"), [(1, 1), (2, 41), (3, 28), (4, 21), (8, 11)])
def test_trial_is_judged_once_its_searched_schedule_has_left_its_start(stages: int, judged: int) -> None:
    params = {"pruning.start": 0.1, "pruning.end": 0.5, "pruning.stages": stages}
    assert find_first_judged_epoch(LP, params, epochs=80) == judged


@pytest.mark.parametrize(
    ("space", "params", "judged"),
    [
        (KD(temperature=uniform(1, 8), pruning=Staircase(0.0, 0.4, stages=4)), {"temperature": 2.0}, 1),
        (KD(temperature=Cosine(uniform(1, 8), 1.0)), {"temperature.start": 4.0}, 1),
        (KD(temperature=choice(4.0, late=Staircase(4.0, 1.0, stages=2))), {"temperature": "late"}, 6),
        (KD(temperature=choice(4.0, late=Staircase(4.0, 1.0, stages=2))), {"temperature": 4.0}, 1),
        (choice(a=LP, b=KD()), {"method": "a", "a.pruning.start": 0.0, "a.pruning.end": 0.4, "a.pruning.stages": 5}, 3),
        (choice(a=LP, b=KD()), {"method": "b"}, 1),
    ],
)
def test_only_schedules_that_are_searched_delay_the_judgement(space: Any, params: dict[str, Any], judged: int) -> None:
    assert find_first_judged_epoch(space, params, epochs=10) == judged


def test_spaces_with_searched_schedules_are_known() -> None:
    assert searches_schedules(LP)
    assert searches_schedules(choice(a=LP, b=KD()))
    assert searches_schedules(KD(temperature=choice(4.0, late=Staircase(4.0, 1.0, stages=2))))
    assert not searches_schedules(KD(temperature=uniform(1, 8), pruning=Staircase(0.0, 0.4, stages=4)))

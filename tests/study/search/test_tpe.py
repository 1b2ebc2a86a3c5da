"""TPE with a bounded view: which trials it sees, and that short searches do not notice."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from study import Tpe
from study.search import tpe
from study.search.tpe import select_visible_trials

X = {"x": optuna.distributions.FloatDistribution(0, 1)}


def make_study(count: int, directions: list[str]) -> optuna.Study:
    """Return a study whose scores are best in the middle; every third trial is pruned."""
    study = optuna.create_study(directions=directions)
    for number in range(count):
        pruned = number % 3 == 2 and len(directions) == 1
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        values = None if pruned else [abs(number - count / 2)] * len(directions)
        study.add_trial(optuna.trial.create_trial(state=state, values=values, params={"x": 0.5}, distributions=X))
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_view_is_the_best_old_trials_and_the_latest_in_order(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "LOOK_BACK", 60)
    study = make_study(120, [direction])
    numbers = [trial.number for trial in select_visible_trials(study)]
    assert numbers[tpe.BEST :] == list(range(60, 120))
    complete = [trial.number for trial in study.trials[:60] if trial.state is TrialState.COMPLETE]
    assert numbers[: tpe.BEST] == (complete[-tpe.BEST :] if direction == "minimize" else complete[: tpe.BEST])


def test_best_old_trials_are_found_whenever_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "LOOK_BACK", 5)
    monkeypatch.setattr(tpe, "BEST", 3)
    study, rng, running = optuna.create_study(direction="maximize"), random.Random(0), []
    for _ in range(150):
        running.append(study.ask())
        while len(running) > 12:  # more than the view, so that old trials still run
            trial = running.pop(rng.randrange(len(running)))
            if rng.random() < 0.3:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, rng.randrange(20))  # ties
        old = [trial for trial in study.trials[:-5] if trial.state is TrialState.COMPLETE]
        best = sorted(sorted(old, key=lambda trial: (-trial.value, trial.number))[:3], key=lambda trial: trial.number)
        assert [trial.number for trial in select_visible_trials(study)[:-5]] == [trial.number for trial in best]


def test_view_of_few_trials_and_of_several_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "LOOK_BACK", 20)
    assert len(select_visible_trials(make_study(20, ["minimize"]))) == 20
    several = select_visible_trials(make_study(50, ["minimize", "maximize"]))
    front = range(30)  # all trials are on it
    assert [trial.number for trial in several] == [*front, *range(30, 50)]


def propose_next(sampler: optuna.samplers.BaseSampler, values: list[float]) -> float:
    """Return the sampler's proposal after complete trials at these values of x, which are their scores too."""
    study = optuna.create_study(sampler=sampler)
    study.add_trials([optuna.trial.create_trial(value=v, params={"x": v}, distributions=X) for v in values])
    return study.ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize("group", [True, False])
def test_tpe_reads_no_trial_but_those_in_view(group: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "LOOK_BACK", 12)
    monkeypatch.setattr(tpe, "BEST", 3)

    def propose(values: list[float]) -> list[float]:
        return [propose_next(Tpe(group=group).build(seed), values) for seed in range(8)]

    recent = [0.5 + i / 40 for i in range(12)]
    old = [0.31, 0.32, 0.33]
    found = propose([*old, *recent])
    assert propose([0.97, 0.98, *old, *recent]) == found, "old trials that are not among the best change nothing"
    assert propose([0.2, *old, *recent]) != found, "the best do, however old"


def test_proposals_of_short_searches_are_those_of_optuna() -> None:
    values = [0.1, 0.4, 0.9]
    for seed in range(4):
        plain = TPESampler(n_startup_trials=2, seed=seed, multivariate=True, group=True, constant_liar=True)
        assert propose_next(Tpe(startup_trials=2).build(seed), values) == propose_next(plain, values)

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study import log_uniform
from study.errors import InputError
from study.identity import describe
from study.space.domains import find_domains, resolve_corners, resolve_params, uniform
from study.space.params import read_params
from trainables.training.recipe import Recipe
from trainables.training.schedules import (
    Cosine,
    CosineWarmRestarts,
    MultiStep,
    Polynomial,
    Staircase,
    Values,
    Warmup,
    evaluate_schedules,
)
from trainables.training.settings import Progress, check_range

runs = st.integers(1, 300).flatmap(
    lambda epochs: st.builds(Progress, st.integers(0, epochs - 1), st.just(epochs), st.floats(0, 1, exclude_max=True))
)
number = st.floats(-100, 100)
schedules = st.one_of(
    st.builds(Staircase, number, number, st.integers(1, 12), st.sampled_from(["linear", "cosine", "step"])),
    st.builds(MultiStep, st.floats(0, 100), st.floats(0, 1)),
    st.builds(Cosine, number, number),
    st.builds(Polynomial, number, st.floats(0.1, 3)),
    st.builds(lambda values: Values(*values), st.lists(number, min_size=1, max_size=6)),
    st.builds(CosineWarmRestarts, number, number, st.integers(1, 6), st.floats(1, 3)),
)


@given(schedules, runs)
def test_schedule_stays_within_its_ends(schedule, progress):
    low, high = schedule.bounds()
    margin = 1e-9 * (1 + abs(low) + abs(high))
    assert low - margin <= schedule.value_at(progress) <= high + margin


@given(st.builds(Progress, st.integers(0, 50), st.integers(51, 300), st.floats(0, 1, exclude_max=True)))
def test_fraction_is_the_share_of_the_run_that_is_done(progress):
    assert 0 <= progress.fraction < 1
    assert progress.fraction * progress.epochs == pytest.approx(progress.epoch + progress.within)


def test_given_values_each_take_an_equal_share_of_the_run():
    schedule = Values(0.0, 0.1, 0.2, 0.4)
    assert [schedule.value_at(Progress(epoch, 80)) for epoch in range(80)] == 20 * [0.0] + 20 * [0.1] + 20 * [0.2] + (
        20 * [0.4]
    )


def test_given_values_at_equal_steps_are_a_staircase():
    for epochs in (1, 2, 3, 4, 5, 11, 80):
        for epoch in range(epochs):
            expected = Staircase(0.0, 0.3, stages=4).value_at(Progress(epoch, epochs))
            if epochs >= 4 or epochs < 3:  # in three epochs a staircase has other steps
                assert Values(0.0, 0.1, 0.2, 0.3).value_at(Progress(epoch, epochs)) == pytest.approx(expected)


def test_given_values_may_be_searched():
    space = Values(0.0, uniform(0.1, 0.2), 0.4)
    assert [name for name, _ in find_domains(space)] == ["values.1"]
    resolved = resolve_params(space, {"values.1": 0.15})
    assert resolved == Values(0.0, 0.15, 0.4)
    assert read_params(space, resolved) == {"values.1": 0.15}
    assert describe(resolved) == {"is": "Values", "from": "trainables", "values": [0.0, 0.15, 0.4]}


@pytest.mark.parametrize(
    ("values", "message"), [((), "no value; write at least one"), ((0.1, math.nan), "a value of a schedule is nan")]
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Values(*values)


def test_published_temperatures_of_resnet8():
    # P1: T0 = 4, r = 40 %, plateaus of 10 epochs in 80 (methods-cifar.md).
    stages = Staircase(5.6, 2.4, stages=8)
    plateaus = [5.600, 5.143, 4.686, 4.229, 3.771, 3.314, 2.857, 2.400]
    for epoch in range(80):
        assert stages.value_at(Progress(epoch, 80)) == pytest.approx(plateaus[epoch // 10], abs=5e-4)


def test_published_pruning_of_resnet8():
    # P1: 0 to 40 % in four stages of 20 epochs.
    stages = Staircase(0.0, 0.4, stages=4)
    for epoch in range(80):
        assert stages.value_at(Progress(epoch, 80)) == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4][epoch // 20])


def test_stage_does_not_move_within_an_epoch():
    stages = Staircase(0.0, 1.0, stages=8)
    assert stages.value_at(Progress(9, 80, within=0.99)) == stages.value_at(Progress(0, 80)) == 0.0
    assert stages.value_at(Progress(10, 80)) == pytest.approx(1 / 7)


@pytest.mark.parametrize("epochs", [2, 3, 4, 5, 7, 30, 239])
def test_stages_end_at_their_end_whatever_the_length(epochs):
    assert Staircase(1.0, 3.0, stages=4).value_at(Progress(0, epochs)) == 1.0
    assert Staircase(1.0, 3.0, stages=4).value_at(Progress(epochs - 1, epochs)) == 3.0


def test_poly_is_torchs_at_each_epochs_start():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.01)
    peer = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for epoch in range(20):
        assert Polynomial(0.01).value_at(Progress(epoch, 20)) == pytest.approx(peer.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        peer.step()


@pytest.mark.parametrize("end", [math.nan, math.inf])
@pytest.mark.parametrize("schedule", [partial(Staircase, stages=3), Cosine, CosineWarmRestarts])
def test_end_that_is_no_number_is_refused(schedule, end):
    with pytest.raises(InputError, match=f"end is {end}; allowed is a finite number"):
        schedule(4.0, end)
    with pytest.raises(InputError, match=f"start is {end}; allowed is a finite number"):
        schedule(end, 4.0)


def test_single_stage_is_its_end():
    assert Staircase(0.0, 0.4, stages=1).value_at(Progress(0, 80)) == 0.4


def test_cosine_stages_are_slow_at_both_ends():
    values = [Staircase(0.0, 1.0, stages=5, shape="cosine").value_at(Progress(epoch, 5)) for epoch in range(5)]
    assert values == pytest.approx([0, 0.5 - math.sqrt(0.125), 0.5, 0.5 + math.sqrt(0.125), 1])


@pytest.mark.parametrize(
    ("stages", "values"), [(1, [2]), (2, [1, 2]), (3, [1, 2, 2]), (4, [1, 1, 2, 2]), (8, [1] * 4 + [2] * 4)]
)
def test_step_stages_are_the_start_then_the_end(stages, values):
    step = Staircase(1.0, 2.0, stages, shape="step")
    assert [step.value_at(Progress(epoch, stages)) for epoch in range(stages)] == values


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.05), (149, 0.05), (150, 0.005), (180, 0.0005), (210, 0.00005), (239, 0.00005)]
)
def test_learning_rate_drops_at_150_180_and_210_of_240(epoch, rate):
    assert MultiStep(0.05).value_at(Progress(epoch, 240)) == pytest.approx(rate)


def test_cosine_moves_at_every_step():
    cosine = Cosine(2.0, 1.0)
    assert cosine.value_at(Progress(0, 10)) == 2.0
    assert cosine.value_at(Progress(4, 10, within=0.5)) > cosine.value_at(Progress(5, 10)) == pytest.approx(1.5)
    assert cosine.value_at(Progress(9, 10, within=0.999)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("cycles", "factor", "epochs"), [(5, 2, 310), (3, 2, 70), (1, 2, 10), (4, 1, 40)])
def test_warm_restarts_are_torchs_stepped_at_every_batch(cycles, factor, epochs):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=factor, eta_min=1e-6)
    ours = CosineWarmRestarts(1e-4, 1e-6, cycles, factor)
    for epoch in range(epochs):
        for step in range(4):
            theirs.step(epoch + step / 4)
            assert ours.value_at(Progress(epoch, epochs, step / 4)) == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("epochs", [7, 10, 70, 311])
def test_warm_restarts_fill_a_run_of_any_length(epochs):
    schedule = CosineWarmRestarts(1.0, 0.0, cycles=3)
    assert schedule.value_at(Progress(0, epochs)) == 1.0
    assert schedule.value_at(Progress(epochs - 1, epochs, within=1 - 1e-9)) == pytest.approx(0, abs=1e-6)
    values = [schedule.value_at(Progress(epoch, epochs, step / 20)) for epoch in range(epochs) for step in range(20)]
    assert sum(later > earlier for earlier, later in pairwise(values)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Staircase(0.0, 1.0, stages=0), "stages is 0"),
        (lambda: Staircase(0.0, 1.0, stages=3, shape="quadratic"), "linear, cosine"),
        (lambda: CosineWarmRestarts(1.0, cycles=0), "cycles is 0"),
        (lambda: CosineWarmRestarts(1.0, cycles=2.5), "cycles is 2.5"),
        (lambda: CosineWarmRestarts(1.0, factor=0.5), "factor is 0.5"),
    ],
)
def test_wrong_schedule_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@dataclass(frozen=True)
class Inner:
    fraction: object
    steady: float = 1.0


@dataclass(frozen=True)
class Setting:
    temperature: object
    inner: Inner
    word: str = "linear"


def test_scheduled_names_every_schedule_with_its_value():
    setting = Setting(Staircase(4.0, 2.0, stages=2), Inner(Cosine(1.0)))
    assert evaluate_schedules(setting, Progress(5, 10)) == {"temperature": 2.0, "inner.fraction": pytest.approx(0.5)}
    assert evaluate_schedules(Setting(4.0, Inner(1.0)), Progress(5, 10)) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Staircase(1.0, 2.0, stages=2.5), "whole number"),
        (lambda: Staircase(1.0, 2.0, stages=0), "stages is 0"),
        (lambda: Staircase(1.0, 2.0, 4, shape="bent"), "allowed are linear, cosine, step"),
        (lambda: MultiStep(0.1, factor=float("nan")), "factor is nan"),
        (lambda: MultiStep(0.1, factor=-0.5), "factor is -0.5"),
        (lambda: MultiStep(0.1, shares=(0.5, 1.5)), "shares of the run"),
        (lambda: check_range("temperature", "4"), "temperature is '4'"),
        (lambda: check_range("temperature", None), "temperature is None"),
        (lambda: check_range("temperature", True), "temperature is True"),
    ],
)
def test_what_is_no_schedule_or_number_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# -- warm-up


def test_warmup_rises_linearly_to_the_schedule_and_follows_it():
    schedule = Warmup(Cosine(1.0), share=0.2, start=0.1)
    for epoch, factor in ((0, 0.1), (5, 0.325), (10, 0.55), (20, 1.0), (60, 1.0)):
        progress = Progress(epoch, 100)
        assert schedule.value_at(progress) == pytest.approx(factor * Cosine(1.0).value_at(progress))


def test_warmup_stays_within_its_bounds():
    for inner in (Cosine(0.3, 0.1), Cosine(-0.3, 0.1), 0.2):
        schedule = Warmup(inner, share=0.3, start=0.2)
        low, high = schedule.bounds()
        values = [schedule.value_at(Progress(epoch, 50, within)) for epoch in range(50) for within in (0, 0.5)]
        assert low <= min(values) <= max(values) <= high


def test_settings_of_a_warmup_are_searched_and_checked():
    recipe = Recipe(learning_rate=Warmup(Cosine(log_uniform(1e-4, 1e-2)), share=uniform(0.01, 0.2)))
    assert [name for name, _ in find_domains(recipe)] == ["learning_rate.schedule.start", "learning_rate.share"]
    assert len(list(resolve_corners(recipe))) == 2
    for settings in ({"share": 0.0}, {"share": 1.5}, {"start": -0.1}, {"start": 1.1}):
        with pytest.raises(InputError, match="allowed is a finite number"):
            Warmup(Cosine(1.0), **settings)

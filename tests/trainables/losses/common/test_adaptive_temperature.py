"""The temperatures of single samples; test_logit_losses.py tests the losses with them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from study.errors import InputError
from study.space.domains import resolve_corners, uniform
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.logits import select_logits
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import KD
from trainables.task import Outputs
from trainables.training.schedules import Progress, Staircase

MIDDLE = Progress(40, 80)


def temperatures(rule: DataAdaptiveTemperature, divergence: list[float], progress: Progress = MIDDLE) -> list[float]:
    column = torch.tensor(divergence, dtype=torch.float64)[:, None]
    result = rule.temperatures(column, 4.0, progress)
    assert result.shape == column.shape
    assert result.dtype == torch.float64
    return result[:, 0].tolist()


def test_published_rule_on_a_batch_of_20():
    # P1: the top 10 % get T·1.05, the bottom 10 % T·0.95, the rest T.
    divergence = [float((7 * i) % 20) for i in range(20)]
    expected = [4.2 if d >= 18 else 3.8 if d < 2 else 4.0 for d in divergence]
    assert temperatures(DataAdaptiveTemperature(), divergence) == pytest.approx(expected, rel=1e-15)


def test_opposite_changes_reverse_the_rule():
    rule = DataAdaptiveTemperature(0.25, 0.25, upper_change=-0.1, lower_change=0.2)
    assert temperatures(rule, [3.0, 0.0, 1.0, 2.0]) == pytest.approx([3.6, 4.8, 4.0, 4.0])


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 300))
@example(29, 7, 100)  # 0.29 · 100 is 28.999999999999996
def test_shares_are_rounded_down_to_whole_samples(upper, lower, batch):
    rule = DataAdaptiveTemperature(upper / 100, lower / 100, 0.5, -0.5)
    result = temperatures(rule, torch.randperm(batch).tolist())
    assert result.count(6.0) == upper * batch // 100
    assert result.count(2.0) == lower * batch // 100
    assert result.count(4.0) == batch - result.count(6.0) - result.count(2.0)


def test_two_halves_leave_the_middle_of_an_odd_batch():
    rule = DataAdaptiveTemperature(0.5, 0.5, 0.5, -0.5)
    assert temperatures(rule, [5.0, 1.0, 3.0, 2.0, 4.0]) == [6.0, 2.0, 4.0, 2.0, 6.0]


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_batch_too_small_for_the_share_keeps_the_temperature(batch):
    assert temperatures(DataAdaptiveTemperature(), list(range(batch))) == [4.0] * batch


def test_of_equal_samples_the_later_ranks_higher():
    rule = DataAdaptiveTemperature(0.25, 0.25, 0.5, -0.5)
    assert temperatures(rule, [1.0] * 8) == [2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 6.0, 6.0]


def test_samples_that_are_not_finite_poison_no_others():
    rule = DataAdaptiveTemperature(0.25, 0.25, 0.5, -0.5)
    assert temperatures(rule, [math.nan, 1.0, math.inf, 3.0, 4.0, 5.0, 6.0, 0.0]) == [6, 2, 6, 4, 4, 4, 4, 2]


@given(st.permutations([float(i) for i in range(12)]))
def test_temperature_follows_the_sample_wherever_it_stands(divergence):
    rule = DataAdaptiveTemperature(0.2, 0.3)
    at_home = temperatures(rule, sorted(divergence))
    assert temperatures(rule, divergence) == [at_home[int(d)] for d in divergence]


def test_shares_and_changes_may_be_schedules():
    rule = DataAdaptiveTemperature(Staircase(0.0, 0.5, stages=2), 0.0, upper_change=Staircase(0.5, 1.0, stages=2))
    assert temperatures(rule, [1.0, 2.0], Progress(0, 10)) == [4.0, 4.0]
    assert temperatures(rule, [1.0, 2.0], Progress(9, 10)) == [4.0, 8.0]


def test_ranking_needs_nothing_from_the_device():
    # A meta tensor has no values: to read one back is an error.
    column = torch.empty(64, 1, device="meta")
    assert DataAdaptiveTemperature().temperatures(column, 4.0, MIDDLE).shape == (64, 1)


# -- in a loss


def sides(seed: int = 0) -> tuple[Outputs, Outputs, Tensor]:
    student, teacher = 3 * torch.randn(2, 20, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Outputs(student), Outputs(teacher), torch.arange(20) % 10


@pytest.mark.parametrize("base", [KD, DKD])
@pytest.mark.parametrize("addons", [{}, {"standardise": True}, {"pruning": 0.4}])
def test_loss_ranks_by_kl_of_what_it_compares_at_the_epochs_temperature(base, addons):
    loss = base(temperature=Staircase(1.0, 6.0, stages=2), adaptive=DataAdaptiveTemperature(), **addons)
    student, teacher, temperature = select_logits(loss, *sides(), Progress(9, 10))
    p_s, p_t = (torch.softmax(z / 6.0, dim=1) for z in (student, teacher))
    ranked = (p_t * (p_t / p_s).log()).sum(dim=1).argsort()
    assert sorted(ranked[-2:].tolist()) == (temperature[:, 0] > 6).nonzero()[:, 0].tolist()
    assert sorted(ranked[:2].tolist()) == (temperature[:, 0] < 6).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("base", [KD, DKD])
def test_changes_of_0_leave_the_loss_as_it_is(base):
    still = DataAdaptiveTemperature(upper_change=0.0, lower_change=0.0)
    values = [base(adaptive=rule)(*sides(), MIDDLE).item() for rule in (None, still, DataAdaptiveTemperature())]
    assert values[1] == pytest.approx(values[0], rel=1e-14)
    assert abs(values[2] / values[0] - 1) > 1e-6


# -- settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("upper_fraction", 0.51),
        ("upper_fraction", -0.1),
        ("lower_fraction", 0.6),
        ("lower_fraction", math.nan),
        ("lower_fraction", Staircase(0.1, 0.7, stages=3)),
        ("upper_change", -1.0),
        ("upper_change", math.inf),
        ("lower_change", -1.5),
        ("lower_change", Staircase(0.0, -1.0, stages=2)),
        ("lower_change", "5 %"),
    ],
)
def test_setting_out_of_range_is_refused(setting, value):
    with pytest.raises(InputError, match=f"{setting} is "):
        DataAdaptiveTemperature(**{setting: value})


def test_domains_are_checked_at_their_ends():
    fits = KD(adaptive=DataAdaptiveTemperature(uniform(0.0, 0.5), upper_change=uniform(-0.9, 0.9)))
    assert len(list(resolve_corners(fits))) == 2
    with pytest.raises(InputError, match=r"upper_fraction is 0\.6"):
        list(resolve_corners(KD(adaptive=DataAdaptiveTemperature(uniform(0.0, 0.6)))))


def test_ranking_at_no_temperature_is_refused():
    with pytest.raises(InputError, match="ranked_at is 0"):
        DataAdaptiveTemperature(ranked_at=0.0)

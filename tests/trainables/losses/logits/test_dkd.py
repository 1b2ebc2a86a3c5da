"""Properties of DKD alone, and its identity with KD."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.errors import InputError
from tests.trainables.losses.logit_losses import (
    COMBINATIONS,
    MIDDLE,
    combined,
    logits,
    reference,
)
from trainables.losses.common.logits import select_logits
from trainables.losses.logits.dkd import DKD, tckd_nckd
from trainables.losses.logits.kd import KD, kd
from trainables.task import Outputs
from trainables.training.schedules import Progress, Staircase


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), Staircase(1.0, -0.1, stages=2)])
@pytest.mark.parametrize(
    ("loss", "setting"), [(KD(), "weight"), (DKD(), "alpha"), (DKD(), "beta"), (DKD(), "warmup")], ids=str
)
def test_weight_that_is_none_is_refused(loss, setting, value):
    with pytest.raises(InputError, match=f"{setting} is"):
        replace(loss, **{setting: value})


def test_warm_up_in_epochs_is_refused():
    with pytest.raises(InputError, match="warmup is 20; allowed is a finite number ≥ 0 and ≤ 1"):
        DKD(warmup=20)


@pytest.mark.parametrize("names", COMBINATIONS, ids=["-".join(names) or "plain" for names in COMBINATIONS])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(3, 30))
def test_kd_is_tckd_plus_the_rest_of_nckd(names, seed, classes):
    # Zhao et al. 2022, eq. 5: KD = TCKD + (1 − p_t,y)·NCKD, whatever the add-ons make of logits and temperature.
    student, teacher, targets = logits(batch=4, classes=classes, seed=seed)
    *pair, temperature = select_logits(KD(**combined(names)), Outputs(student), Outputs(teacher), targets, MIDDLE)
    tckd, nckd = tckd_nckd(*pair, temperature)
    p_target = torch.softmax(pair[1] / temperature, dim=1)[:, :1]
    torch.testing.assert_close(kd(*pair, temperature), tckd + (1 - p_target) * nckd, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.05), (9, 0.5), (19, 1.0), (20, 1.0), (239, 1.0)])
def test_dkd_warms_up_over_20_of_240_epochs(epoch, factor):
    # Zhao et al. 2022: min(epoch/20, 1), epoch counted from 1, in runs of 240.
    student, teacher, targets = (Outputs(z) if z.dim() == 2 else z for z in logits())
    full = DKD(warmup=0.0)(student, teacher, targets, Progress(epoch, 240))
    warming = DKD()(student, teacher, targets, Progress(epoch, 240))
    assert (warming / full).item() == pytest.approx(factor, rel=1e-12)


def test_dkd_of_a_confidently_wrong_student_is_exact():
    # d = 24 is beyond torch's softplus threshold of 20, which would be off by 4e-11 · p_t · T².
    student, teacher = torch.zeros(2, 1, 10, dtype=torch.float64)
    student[0, 0], teacher[0, 0] = -24 + math.log(9), 2.0
    targets = torch.tensor([0])
    loss = DKD(temperature=1.0)
    value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    assert value.item() == pytest.approx(reference(loss, student, teacher, targets, MIDDLE), rel=1e-14)

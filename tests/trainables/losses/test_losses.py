"""One conformance suite for every loss on logits under every combination of add-ons, and what only one has.

A new loss joins by a line in LOSSES and its direct form in `reference`.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from study.errors import InputError
from study.identity import describe
from study.space.domains import resolve_corners, uniform
from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.common.logits import select_logits
from trainables.losses.common.pruning import select_kept_classes
from trainables.losses.dkd import DKD, tckd_nckd
from trainables.losses.kd import KD, kd
from trainables.losses.none import NoDistillation
from trainables.task import Outputs
from trainables.training.schedules import Cosine, Progress, Staircase, value_at

MOVING = Staircase(5.6, 2.4, stages=8)
PUBLISHED_PRUNING = Staircase(0.0, 0.4, stages=4)
# Shares that pick samples of batches of 3, and changes large enough to be seen.
ADAPTIVE = DataAdaptiveTemperature(upper_fraction=0.4, lower_fraction=0.35, upper_change=0.4, lower_change=-0.3)
ADDONS = {
    "standardised": {"standardise": True},
    "dat": {"adaptive": ADAPTIVE},
    "lp": {"pruning": PUBLISHED_PRUNING},
    "eat": {"temperature": MOVING},
}


def combined(names: tuple[str, ...]) -> dict[str, object]:
    return {setting: value for name in names for setting, value in ADDONS[name].items()}


COMBINATIONS = [
    tuple(name for name, on in zip(ADDONS, switches, strict=True) if on) for switches in product((0, 1), repeat=4)
]
LOSSES = {"-".join((base.__name__, *names)): base(**combined(names)) for base in (KD, DKD) for names in COMBINATIONS}
LOSSES |= {
    "KD, cold": KD(temperature=1.0, weight=1.0, pruning=0.5),
    "KD, weight moves": KD(temperature=MOVING, weight=Cosine(0.9, 0.1), pruning=PUBLISHED_PRUNING),
    "KD, DAT as published": KD(adaptive=DataAdaptiveTemperature()),
    "KD, DAT ranked by other logits": KD(adaptive=replace(ADAPTIVE, ranked_at=0.5)),
    "KD, standardised as published": KD(standardise=True, temperature=2.0, weight=9.0),
    "DKD, no warm-up": DKD(temperature=2.0, alpha=0.5, beta=8.0, warmup=0.0, pruning=0.35),
    "DKD, beta moves": DKD(temperature=MOVING, beta=Staircase(1.0, 4.0, stages=3), pruning=PUBLISHED_PRUNING),
    "DKD, shares of DAT move": DKD(adaptive=replace(ADAPTIVE, upper_fraction=Staircase(0.0, 0.5, stages=3))),
}
MIDDLE = Progress(epoch=45, epochs=80, within=0.25)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
every_loss_of_single_samples = pytest.mark.parametrize(
    "loss", [pytest.param(loss, id=name) for name, loss in LOSSES.items() if loss.adaptive is None]
)


def logits(batch: int = 16, classes: int = 20, spread: float = 5.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = spread * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (batch,), generator=generator)


def value_and_gradient(loss, student, teacher, targets, progress=MIDDLE) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(Outputs(student), Outputs(teacher), targets, progress)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


# -- independent reference, in the direct form: probabilities first, then their logarithms


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def reference_kept(teacher, target, share):
    others = [c for c in range(len(teacher)) if c != target]
    pruned = min(int(share * len(teacher) + 1e-9), len(others) - 2)
    lowest = sorted(others, key=lambda c: (np.float16(teacher[c]), c))[:pruned]
    return [target] + [c for c in others if c not in lowest]


def reference_logits(loss, student, teacher, targets, progress):
    """Per sample the student's and the teacher's kept logits, the target first, standardised if the loss is."""
    pairs = []
    for z_s, z_t, y in zip(student.numpy(), teacher.numpy(), targets.tolist(), strict=True):
        kept = reference_kept(z_t, y, value_at(loss.pruning, progress))
        pair = [z[kept] for z in (z_s, z_t)]
        if loss.standardise:
            pair = [(z - z.mean()) / (z.std(ddof=1) + 1e-7) for z in pair]
        pairs.append(pair)
    return pairs


def reference_temperatures(loss, pairs, progress):
    temperature, batch = value_at(loss.temperature, progress), len(pairs)
    temperatures = [temperature] * batch
    if (rule := loss.adaptive) is not None:
        ranked_at = temperature if rule.ranked_at is None else value_at(rule.ranked_at, progress)
        apart = [kl(softmax(z_t / ranked_at), softmax(z_s / ranked_at)) for z_s, z_t in pairs]
        ranked = sorted(range(batch), key=lambda i: (apart[i], i))
        for i in ranked[: int(value_at(rule.lower_fraction, progress) * batch + 1e-9)]:
            temperatures[i] = temperature * (1 + value_at(rule.lower_change, progress))
        for i in ranked[::-1][: int(value_at(rule.upper_fraction, progress) * batch + 1e-9)]:
            temperatures[i] = temperature * (1 + value_at(rule.upper_change, progress))
    return temperatures


def reference(loss, student, teacher, targets, progress):
    """The loss sample by sample in numpy."""
    pairs = reference_logits(loss, student, teacher, targets, progress)
    values = []
    for (z_s, z_t), temperature in zip(pairs, reference_temperatures(loss, pairs, progress), strict=True):
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        if isinstance(loss, KD):
            value = value_at(loss.weight, progress) * kl(p_t, p_s)
        else:
            binary_s, binary_t = (np.array([p[0], p[1:].sum()]) for p in (p_s, p_t))
            others_s, others_t = (p[1:] / p[1:].sum() for p in (p_s, p_t))
            value = value_at(loss.alpha, progress) * kl(binary_t, binary_s)
            value += value_at(loss.beta, progress) * kl(others_t, others_s)
            if value_at(loss.warmup, progress) > 0:
                value *= min((progress.epoch + 1) / (value_at(loss.warmup, progress) * progress.epochs), 1)
        values.append(temperature**2 * value)
    return np.mean(values)


# -- every loss


@every_loss
@pytest.mark.parametrize(("epoch", "spread"), [(0, 5), (2, 5), (45, 5), (79, 5), (79, 0.1), (45, 60)])
def test_loss_equals_the_direct_form_in_numpy(loss, epoch, spread):
    student, teacher, targets = logits(spread=spread)
    progress = Progress(epoch, 80)
    value = loss(Outputs(student), Outputs(teacher), targets, progress)
    expected = reference(loss, student, teacher, targets, progress)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@every_loss
def test_gradient_equals_finite_differences(loss):
    student, teacher, targets = logits(batch=3, classes=6)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(Outputs(z), Outputs(teacher), targets, MIDDLE), student)


@every_loss
def test_student_equal_to_teacher_gives_zero_and_no_gradient(loss):
    _, teacher, targets = logits()
    value, gradient = value_and_gradient(loss, teacher, teacher, targets)
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert gradient.abs().max() < 1e-15


@every_loss
def test_student_unlike_teacher_gives_a_positive_loss(loss):
    value, gradient = value_and_gradient(loss, *logits())
    assert value > 0.01
    assert gradient.abs().max() > 1e-4


@every_loss
def test_teacher_receives_no_gradient(loss):
    student, teacher, targets = logits()
    student.requires_grad_()
    teacher.requires_grad_()
    loss(Outputs(student), Outputs(teacher), targets, MIDDLE).backward()
    assert student.grad is not None
    assert teacher.grad is None


@every_loss
def test_order_within_the_batch_does_not_matter(loss):
    # No two samples are equally far apart here; what ties do under DAT is in test_adaptive_temperature.py.
    student, teacher, targets = logits()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    permuted, permuted_gradient = value_and_gradient(loss, student[order], teacher[order], targets[order])
    assert permuted.item() == pytest.approx(value.item(), rel=1e-14)
    torch.testing.assert_close(permuted_gradient, gradient[order], rtol=1e-14, atol=0)


@every_loss_of_single_samples
def test_batch_is_the_mean_of_its_samples(loss):
    student, teacher, targets = logits(batch=5)
    value, _ = value_and_gradient(loss, student, teacher, targets)
    singles = [value_and_gradient(loss, student[[i]], teacher[[i]], targets[[i]])[0] for i in range(5)]
    assert value.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-14)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, 5e3])
@pytest.mark.parametrize("agreeing", [True, False])
def test_extreme_logits_give_finite_loss_and_gradient(loss, dtype, size, agreeing):
    # Gaps of 2e4 and 1e4 at temperatures up to 5.6: over 1,000·T. Row 0 is for, row 1 against the target.
    teacher = torch.full((2, 10), -size, dtype=dtype)
    teacher[:, 3] = size
    student = teacher if agreeing else -teacher
    value, gradient = value_and_gradient(loss, student, teacher, torch.tensor([3, 5]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert agreeing or value > (0.1 if loss.standardise else 100)


@every_loss
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=24, max_size=24))
def test_any_float32_logits_give_a_finite_loss_not_below_zero(loss, values):
    student, teacher = torch.tensor(values, dtype=torch.float32).view(2, 3, 4)
    value, gradient = value_and_gradient(loss, student, teacher, torch.tensor([0, 1, 3]))
    assert torch.isfinite(gradient).all()
    # Rounding of near-equal probabilities may leave a little less than nothing.
    assert -1e-3 <= value.item() < float("inf")


@every_loss
def test_equal_logits_on_both_sides_give_zero(loss):
    flat = torch.zeros(4, 10, dtype=torch.float64)
    value, gradient = value_and_gradient(loss, flat, flat + 3, torch.tensor([0, 1, 2, 9]))
    assert value.item() == pytest.approx(0, abs=1e-15)
    # Standardising flat logits divides by 1e-7: the rounding of a gradient of 0 is 1e7 times as large.
    assert gradient.abs().max() < (1e-8 if loss.standardise else 1e-15)


@every_loss
@pytest.mark.parametrize("level", [0.0, 0.1, -7.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flat_side", ["student", "teacher"])
def test_all_equal_logits_on_one_side_give_finite_loss_and_gradient(loss, level, dtype, flat_side):
    student, teacher, targets = logits(batch=5, classes=10)
    flat, other = torch.full((5, 10), level, dtype=dtype), (teacher if flat_side == "student" else student).to(dtype)
    sides = (flat, other) if flat_side == "student" else (other, flat)
    value, gradient = value_and_gradient(loss, *sides, targets)
    assert torch.isfinite(gradient).all()
    expected = reference(loss, *(side.double() for side in sides), targets, MIDDLE)
    assert value.item() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-3)


@every_loss
def test_batch_of_one_equals_the_direct_form(loss):
    student, teacher, targets = logits(batch=1)
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value.item() == pytest.approx(reference(loss, student, teacher, targets, MIDDLE), rel=1e-12)
    assert gradient.abs().max() > 0


@every_loss
def test_tied_teacher_logits_equal_the_direct_form(loss):
    student, teacher, targets = logits()
    teacher = teacher.div(4).round()
    value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    expected = reference(loss, student, teacher, targets, MIDDLE)
    assert value.item() == pytest.approx(expected, rel=1e-12)


@every_loss
def test_loss_under_autocast_is_float32_and_exact(loss):
    student, teacher, targets = (tensor for tensor in logits())
    student, teacher = student.bfloat16(), teacher.bfloat16()
    exact = loss(Outputs(student.float()), Outputs(teacher.float()), targets, MIDDLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


@every_loss
def test_stored_half_precision_teacher_keeps_the_same_classes(loss):
    student, teacher, targets = logits(batch=64, classes=100, spread=0.5)
    share = value_at(loss.pruning, MIDDLE)
    live, stored = teacher.float(), teacher.half()
    assert torch.equal(select_kept_classes(live, targets, share), select_kept_classes(stored, targets, share))
    live_loss, stored_loss = (loss(Outputs(student), Outputs(z), targets, MIDDLE) for z in (live, stored))
    assert stored_loss.item() == pytest.approx(live_loss.item(), rel=1e-2)


@every_loss
def test_pruned_classes_have_no_influence(loss):
    loss = replace(loss, pruning=0.4)
    student, teacher, targets = logits(batch=8, classes=10)
    columns = torch.cat((targets[:, None], select_kept_classes(teacher, targets, 0.4)), dim=1)
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    kept = torch.zeros(8, 10, dtype=torch.bool).scatter(1, columns, True)
    assert torch.equal(gradient != 0, kept)
    changed, _ = value_and_gradient(loss, torch.where(kept, student, 1e3), teacher, targets)
    assert torch.equal(value, changed)


@every_loss
def test_pruning_equals_the_plain_loss_on_gathered_kept_classes(loss):
    student, teacher, targets = logits(batch=8, classes=10)
    pruned = replace(loss, pruning=0.4)(Outputs(student), Outputs(teacher), targets, MIDDLE)
    columns = torch.cat((targets[:, None], select_kept_classes(teacher, targets, 0.4)), dim=1)
    kept = (Outputs(z.gather(1, columns)) for z in (student, teacher))
    plain = replace(loss, pruning=0.0)(*kept, torch.zeros_like(targets), MIDDLE)
    assert pruned.item() == pytest.approx(plain.item(), rel=1e-14)


@every_loss
def test_two_classes_are_refused(loss):
    student, teacher, targets = logits(classes=2)
    with pytest.raises(InputError, match="2 classes"):
        loss(Outputs(student), Outputs(teacher), targets, MIDDLE)


@every_loss
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", float("inf")),
        ("temperature", Staircase(4.0, 0.0, stages=2)),
        ("pruning", 1.0),
        ("pruning", -0.1),
        ("pruning", Staircase(0.0, 1.0, stages=4)),
        ("task_weight", -0.5),
        ("task_weight", float("nan")),
        ("standardise", 1),
        ("standardise", "yes"),
        ("adaptive", True),
        ("adaptive", 0.1),
    ],
)
def test_setting_out_of_range_is_refused(loss, setting, value):
    with pytest.raises(InputError, match=setting):
        replace(loss, **{setting: value})


@every_loss
def test_domain_is_checked_at_its_ends(loss):
    searched = replace(loss, pruning=Staircase(0.0, uniform(0.1, 1.0), stages=4))
    with pytest.raises(InputError, match="pruning is 1"):
        list(resolve_corners(searched))
    assert len(list(resolve_corners(replace(loss, pruning=uniform(0.0, 0.5))))) == 2


@every_loss
def test_loss_describes_all_its_settings(loss):
    description = describe(loss)
    assert set(description) >= {"is", *(field.name for field in fields(loss))}
    assert loss.needs_teacher


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


def test_ranking_at_no_temperature_is_refused():
    with pytest.raises(InputError, match="ranked_at is 0"):
        DataAdaptiveTemperature(ranked_at=0.0)


# -- DKD and KD


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


@every_loss
def test_what_is_compared_has_the_target_first_and_no_gradient_but_the_students(loss):
    student, teacher, targets = logits()
    student.requires_grad_()
    teacher.requires_grad_()
    z_s, z_t, temperature = select_logits(
        replace(loss, standardise=False), *map(Outputs, (student, teacher)), targets, MIDDLE
    )
    assert torch.equal(z_t[:, :1], teacher.gather(1, targets[:, None]))
    assert z_s.requires_grad
    assert not z_t.requires_grad
    assert isinstance(temperature, float) if loss.adaptive is None else not temperature.requires_grad


@pytest.mark.parametrize("function", [kd, lambda *arguments: torch.cat(tckd_nckd(*arguments), dim=1)])
def test_temperature_per_sample_equals_each_sample_at_its_own(function):
    student, teacher, _ = logits(batch=3)
    temperatures = torch.tensor([[3.8], [4.0], [4.2]], dtype=torch.float64)
    together = function(student, teacher, temperatures)
    apart = [function(student[[i]], teacher[[i]], temperatures[i].item()) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-14, atol=0)


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


def test_squared_temperature_keeps_the_size_of_the_gradient():
    # methods-cifar: over T = 2.4 … 5.6 the gradient's norm moves by a few per cent, without T² by a factor 5.
    student, teacher, targets = logits(batch=64, classes=100, spread=1.0)
    norms = [value_and_gradient(KD(temperature=t), student, teacher, targets)[1].norm() for t in (2.4, 5.6)]
    assert 0.8 < norms[0] / norms[1] < 1.25


# -- no distillation


def test_no_distillation_adds_zero_without_a_teacher():
    loss = NoDistillation()
    value = loss(Outputs(torch.ones(2, 5, requires_grad=True)), None, torch.zeros(2), MIDDLE)
    assert value.shape == ()
    assert value.item() == 0
    assert not loss.needs_teacher
    assert value_at(loss.task_weight, MIDDLE) == 1.0
    assert describe(loss)["is"] == "NoDistillation"

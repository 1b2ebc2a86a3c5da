"""Losses on logits under all combinations of add-ons, and their direct form in numpy.

A new loss joins by a line in LOSSES and its direct form in `reference`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.losses.common.adaptive_temperature import DataAdaptiveTemperature
from trainables.losses.logits.dkd import DKD
from trainables.losses.logits.kd import KD
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


def logits(batch: int = 16, classes: int = 20, spread: float = 5.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = spread * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (batch,), generator=generator)


def value_and_gradient(loss, student, teacher, targets, progress=MIDDLE) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(Outputs(student), Outputs(teacher), targets, progress)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


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


def assert_exact_under_autocast(loss: Any) -> None:
    """Check that a loss of bfloat16 logits under autocast is float32, and that of the same logits in float32."""
    student, teacher, targets = logits()
    student, teacher = student.bfloat16(), teacher.bfloat16()
    exact = loss(Outputs(student.float()), Outputs(teacher.float()), targets, MIDDLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(Outputs(student), Outputs(teacher), targets, MIDDLE)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)

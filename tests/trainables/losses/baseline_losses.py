"""The field's losses on logits, and their direct form in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.trainables.losses.logit_losses import kl, softmax
from trainables.losses.logits.ctkd import CTKD
from trainables.losses.logits.dist import DIST
from trainables.losses.logits.mlkd import MLKD
from trainables.losses.logits.nkd import NKD
from trainables.losses.logits.ttm import TTM
from trainables.training.schedules import Staircase, value_at

MOVING = Staircase(5.6, 2.4, stages=8)
LOSSES = {
    "DIST": DIST(),
    "DIST, moving": DIST(temperature=MOVING, weight=2.0, beta=0.5, gamma=3.0),
    "NKD": NKD(),
    "NKD, warm": NKD(temperature=MOVING, gamma=3.5, weight=0.5),
    "TTM": TTM(),
    "TTM, moving": TTM(temperature=MOVING, weight=2.0),
    "WTTM": TTM(weight=4.0, weighted=True),
    "MLKD": MLKD(),
    "MLKD, moving": MLKD(temperature=MOVING, batch_weight=3.0, class_weight=0.5),
    "CTKD": CTKD(),
    "CTKD, narrow": CTKD(weight=2.0, lowest=2.0, span=1.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def reference(loss, student, teacher, targets, progress):
    sides = student.double().numpy(), teacher.double().numpy()
    kind = {DIST: dist, NKD: nkd, TTM: ttm, MLKD: mlkd, CTKD: ctkd}[type(loss)]
    return value_at(loss.weight, progress) * kind(loss, *sides, targets.tolist(), progress)


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (math.sqrt((a**2).sum()) * math.sqrt((b**2).sum()) + 1e-8)


def dist(loss, z_s, z_t, targets, progress):
    t = value_at(loss.temperature, progress)
    y_s, y_t = (np.array([softmax(row / t) for row in z]) for z in (z_s, z_t))
    inter = 1 - np.mean([correlation(a, b) for a, b in zip(y_s, y_t, strict=True)])
    intra = 1 - np.mean([correlation(a, b) for a, b in zip(y_s.T, y_t.T, strict=True)])
    return t**2 * (loss.beta * inter + loss.gamma * intra)


def nkd(loss, z_s, z_t, targets, progress):
    t, values = value_at(loss.temperature, progress), []
    for a, b, y in zip(z_s, z_t, targets, strict=True):
        others = [k for k in range(len(a)) if k != y]
        q_s, q_t = softmax(a[others] / t), softmax(b[others] / t)
        of_others = -(q_t * np.log(q_s)).sum()
        values.append(-softmax(b)[y] * np.log(softmax(a)[y]) + loss.gamma * t**2 * of_others)
    return np.mean(values)


def ttm(loss, z_s, z_t, targets, progress):
    exponent, values = 1 / value_at(loss.temperature, progress), []
    for a, b in zip(z_s, z_t, strict=True):
        power = softmax(b) ** exponent
        values.append((power.sum() if loss.weighted else 1) * kl(power / power.sum(), softmax(a)))
    return np.mean(values)


def mlkd(loss, z_s, z_t, targets, progress):
    total, middle = 0.0, value_at(loss.temperature, progress)
    for t in (middle * share / 4 for share in (2, 3, 4, 5, 6)):
        p, q = (np.array([softmax(row / t) for row in z]) for z in (z_s, z_t))
        total += t**2 * np.mean([kl(b, a) for a, b in zip(p, q, strict=True)])
        total += loss.batch_weight * ((p @ p.T - q @ q.T) ** 2).sum() / len(p)
        total += loss.class_weight * ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[1]
    return total


def ctkd(loss, z_s, z_t, targets, progress):
    t = float(np.float32(loss.lowest + loss.span * np.float32(1 / (1 + math.exp(-1)))))
    return t**2 * np.mean([kl(softmax(b / t), softmax(a / t)) for a, b in zip(z_s, z_t, strict=True)])

"""The simulated studies of verdicts.py: their designs, the test metrics drawn for them, and the report's comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.analysis import power
from reports.analysis.comparison import Comparison, compare_arms
from reports.analysis.sign_tests import Test
from reports.load import StudyRecords

SEED_SD, NOISE_SD = 0.01, 0.005
"""Standard deviations of the effect of a seed that all arms share, and of each arm's own noise."""
DIFFERENCE_SD = math.sqrt(2) * NOISE_SD

Draw = Callable[[np.random.Generator, int, int], NDArray[np.float64]]
"""Draw noise (arms, seeds) with mean 0 and standard deviation 1; the control is the first arm."""


@dataclass(frozen=True)
class Design:
    """A study to simulate. `effect`, in sd of paired differences, is on the first arm after the control."""

    name: str
    noise: str
    arms: int
    """The number of arms compared with the control."""
    seeds: int
    effect: float = 0.0
    test: Test = "sign-flip"
    margin: float | None = None
    """Of all arms, in sd of paired differences."""


def draw_normal(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    return rng.normal(size=(arms, seeds))


def draw_skewed(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Draw noise with most runs slightly above the mean and a few far below it, as in training."""
    return 1.0 - rng.exponential(size=(arms, seeds))


def draw_quiet_control(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Draw skewed noise with a control that hardly varies: differences are then as skewed as the arms."""
    return draw_skewed(rng, arms, seeds) * np.where(np.arange(arms) == 0, 0.1, 1.0)[:, None]


def draw_equal_medians(rng: np.random.Generator, arms: int, seeds: int) -> NDArray[np.float64]:
    """Draw skewed noise with a quiet control, shifted so that no arm is better on most seeds."""
    noise = draw_quiet_control(rng, arms, seeds)
    noise[1:] -= QUIET_MEDIAN
    return noise


QUIET_MEDIAN = float(np.median(np.diff(draw_quiet_control(np.random.default_rng(0), 2, 1_000_000), axis=0)))
"""Median of the differences to a quiet control, of which the mean is 0."""

NOISES: dict[str, Draw] = {
    "equal medians": draw_equal_medians,
    "normal": draw_normal,
    "skewed": draw_skewed,
    "skewed arms, quiet control": draw_quiet_control,
}
NULLS = tuple(
    Design(f"null_{name}_{arms}", noise, arms, seeds)
    for name, noise in (("normal", "normal"), ("skewed", "skewed"), ("quiet", "skewed arms, quiet control"))
    for arms, seeds in ((3, 8), (6, 10))
)


SIGN_NULLS = tuple(
    Design(f"null_sign_{name}_{arms}", noise, arms, seeds, test="sign")
    for name, noise in (("normal", "normal"), ("median", "equal medians"))
    for arms, seeds in ((3, 8), (6, 10))
)
"""Null studies of the sign test: neither arm is better on most seeds."""
MARGINS = tuple(
    Design(f"margin_{seeds}_{outcome}", "normal", 1, seeds, effect, margin=1.5)
    for seeds in (8, 12)
    for outcome, effect in (("wrong", -1.5), ("found", 0.0))
)
"""Studies whose arm is exactly as much worse as the margin, of which at most 5 % may be called not worse, or equal."""


def list_planted_designs() -> Iterable[Design]:
    """Return large to moderate effects, alone and among six comparisons, with the seeds that `seeds_needed` returns."""
    for arms in (1, 6):
        for effect in (2.0, 1.6, 1.3, 1.0, 0.7):
            needed = power.seeds_needed(effect, 1.0, arms)
            assert needed is not None
            yield Design(f"planted_{effect}_{arms}".replace(".", ""), "normal", arms, needed, effect)


def simulate(design: Design, number: int) -> Comparison:
    """Simulate one study, and return the report's comparison of its confirm runs."""
    arms = ["control", *(f"arm {i}" for i in range(1, design.arms + 1))]
    (comparison,) = compare_arms(_make_records(arms, draw_scores(design, number), design))
    return comparison


def draw_scores(design: Design, number: int) -> NDArray[np.float64]:
    """Draw the test metric (arms, seeds); the control is the first arm."""
    rng = np.random.default_rng([number, *design.name.encode()])
    values = 0.9 + SEED_SD * rng.normal(size=design.seeds)
    values = values + NOISE_SD * NOISES[design.noise](rng, design.arms + 1, design.seeds)
    values[1] += design.effect * DIFFERENCE_SD
    return values


def _make_records(arms: list[str], values: NDArray[np.float64], design: Design) -> StudyRecords:
    percent = 100 * DIFFERENCE_SD  # margins are in the unit in which accuracies are written
    margin = design.margin * percent if design.margin is not None else None
    cells = [
        {"cell": arm, "student": "student", "arm": arm, "versus": ["control"] * (arm != "control"), "margin": margin}
        for arm in arms
    ]
    study = {"metric": "val/accuracy", "direction": "max", "cells": cells, "budget": {"seeds": values.shape[1]}}
    study |= {"test": design.test}
    trials = pd.DataFrame(
        {
            "cell": np.repeat(arms, values.shape[1]),
            "phase": "confirm",
            "state": "COMPLETE",
            "point": 0,
            "params": "{}",
            "code": "one version",
            "number": np.tile(np.arange(values.shape[1]), len(arms)),
            "seed": np.tile(np.arange(values.shape[1]), len(arms)),
            "test/accuracy": values.ravel(),
        }
    )
    return StudyRecords(Path(), study, trials, pd.DataFrame())

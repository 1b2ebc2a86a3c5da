"""Warm-up of a schedule."""

from __future__ import annotations

import pytest

from study import log_uniform, uniform
from study.errors import InputError
from study.space.domains import find_domains, resolve_corners
from study.trial import Progress
from trainables.training.recipe import Recipe
from trainables.training.schedules import Cosine
from trainables.training.warmup import Warmup


def test_value_rises_linearly_to_the_schedule_and_follows_it():
    schedule = Warmup(Cosine(1.0), share=0.2, start=0.1)
    for epoch, factor in ((0, 0.1), (5, 0.325), (10, 0.55), (20, 1.0), (60, 1.0)):
        progress = Progress(epoch, 100)
        assert schedule.value_at(progress) == pytest.approx(factor * Cosine(1.0).value_at(progress))


def test_value_stays_within_its_bounds():
    for inner in (Cosine(0.3, 0.1), Cosine(-0.3, 0.1), 0.2):
        schedule = Warmup(inner, share=0.3, start=0.2)
        low, high = schedule.bounds()
        values = [schedule.value_at(Progress(epoch, 50, within)) for epoch in range(50) for within in (0, 0.5)]
        assert low <= min(values) <= max(values) <= high


def test_settings_are_searched_and_checked():
    recipe = Recipe(learning_rate=Warmup(Cosine(log_uniform(1e-4, 1e-2)), share=uniform(0.01, 0.2)))
    assert [name for name, _ in find_domains(recipe)] == ["learning_rate.schedule.start", "learning_rate.share"]
    assert len(list(resolve_corners(recipe))) == 2
    for settings in ({"share": 0.0}, {"share": 1.5}, {"start": -0.1}, {"start": 1.1}):
        with pytest.raises(InputError, match="allowed is a finite number"):
            Warmup(Cosine(1.0), **settings)

"""The search of a cell: a stopping rule that cannot choose blind."""

from __future__ import annotations

import dataclasses
import statistics

import pytest

from benchmarks.problems import EPOCHS, make_late_study
from benchmarks.search import run_search
from study import Budget, Never, Random, SuccessiveHalving
from study.engine import search_progress

SEEDS, TRIALS = 3, 24


def find_mean_best(stopping: Never | SuccessiveHalving) -> float:
    """Return the best validation accuracy of a random search whose settings take effect late, a mean over studies."""
    studies = (
        dataclasses.replace(
            make_late_study(seed), sampler=Random(), stopping=stopping, budget=Budget(TRIALS, EPOCHS, seeds=1)
        )
        for seed in range(SEEDS)
    )
    return statistics.mean(max(score for _, score in run_search(study, TRIALS * EPOCHS)) for study in studies)


def test_halving_finds_a_late_effect_as_well_as_without_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    complete, halved = find_mean_best(Never()), find_mean_best(SuccessiveHalving())
    assert halved == pytest.approx(complete, abs=0.005)
    monkeypatch.setattr(search_progress, "find_first_judged_epoch", lambda *_: 1)
    assert find_mean_best(SuccessiveHalving()) < complete - 0.03, "stopped before the settings had an effect"

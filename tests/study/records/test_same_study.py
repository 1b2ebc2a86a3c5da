"""Which changes of a study's settings only extend it; tests/study/engine/test_extension.py continues such studies."""

from __future__ import annotations

import pytest

from study import Arm, Budget, PopulationBased, uniform
from study.records.same_study import _is_allowed
from tests.study.toy import BASELINE, toy
from trainables import SimulatedLoss


@pytest.mark.parametrize(("population", "allowed"), [(None, False), (4, True), (9, False)])
def test_more_trials_extend_a_study_unless_its_population_would_grow(population: int | None, allowed: bool) -> None:
    arm = Arm("dynamic", SimulatedLoss(x=uniform(0, 1)), search=PopulationBased(population=population))
    study = toy((BASELINE, arm), budget=Budget(trials=12, epochs=6, seeds=3))
    assert _is_allowed("budget.trials: 8 → 12", study) == allowed
    assert _is_allowed("budget.seeds: 2 → 3", study)
    assert not _is_allowed("budget.trials: 12 → 8", study)
    assert _is_allowed("budget.trials: 8 → 12", toy())

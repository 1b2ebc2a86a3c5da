"""study.json: written in one step, read only where it is whole and of a known schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study import Arm, Budget, PopulationBased, uniform
from study.records.parquet_table import RecordsError
from study.records.study_json import _is_allowed, read_study, write_study
from tests.study.toy import BASELINE, toy
from trainables import SimulatedLoss


def test_study_json_survives_a_failed_write(tmp_path: Path) -> None:
    write_study(tmp_path, {"schema": 1, "name": "first"})
    with pytest.raises(TypeError):
        write_study(tmp_path, {"schema": 1, "name": object()})
    assert read_study(tmp_path)["name"] == "first"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no study"),
        ("{half", "is damaged"),
        (json.dumps({"schema": 99}), "schema 99; this version reads up to 2"),
    ],
)
def test_folder_that_is_no_study_of_this_version_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(RecordsError, match=message):
        read_study(tmp_path)


@pytest.mark.parametrize(("population", "allowed"), [(None, False), (4, True), (9, False)])
def test_more_trials_extend_a_study_unless_its_population_would_grow(population: int | None, allowed: bool) -> None:
    arm = Arm("dynamic", SimulatedLoss(x=uniform(0, 1)), search=PopulationBased(population=population))
    study = toy((BASELINE, arm), budget=Budget(trials=12, epochs=6, seeds=3))
    assert _is_allowed("budget.trials: 8 → 12", study) == allowed
    assert _is_allowed("budget.seeds: 2 → 3", study)
    assert not _is_allowed("budget.trials: 12 → 8", study)
    assert _is_allowed("budget.trials: 8 → 12", toy())

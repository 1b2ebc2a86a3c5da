"""Warm start: an earlier study's best configurations come first, and what becomes of it later changes nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import Arm, Budget, CmaEs, Never, Study, Tpe, WarmStart, choice, uniform
from study.engine.coordinator import Coordinator
from study.engine.replay import replay_records
from study.engine.warm_start import read_warm_start
from study.errors import InputError
from study.identity import describe
from study.records.parquet_table import Records
from study.records.study_json import write_study
from study.space.domains import find_domains
from tests.study.toy import BASELINE, SEARCHED, drive, open_coordinator, toy
from trainables.tasks.simulated import Extra, Simulated, SimulatedLoss

TASK = Simulated(teacher_epochs=0)
FIRST = (SimulatedLoss(x=0.5, gain=0.05),)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A finished study: two searched arms, ten trials each."""
    other = Arm("other", SimulatedLoss(x=uniform(0, 1), extra=choice(None, Extra(uniform(0, 1)))))
    budget = Budget(trials=10, epochs=3, seeds=1)
    study = toy((BASELINE, SEARCHED, other), name="earlier", task=TASK, budget=budget, stopping=Never())
    return finished(study, tmp_path)


def finished(study: Study, folder: Path) -> Path:
    coordinator = open_coordinator(study, folder)
    assert drive(coordinator, folder)
    cells = [
        {
            "cell": cell.name,
            "searched": cell.is_searched,
            "parameters": [name for name, _ in find_domains(cell.space)],
        }
        for cell in study.cells
    ]
    write_study(folder / study.name, {"cells": cells, "metric": study.metric, "direction": study.direction})
    return folder / study.name


def ranked(folder: Path, cell: str, metric: str = "val/accuracy", sign: int = -1) -> list[dict[str, Any]]:
    rows = [
        row
        for row in Records(folder, TASK.metrics).trials.read_rows()
        if (row["cell"], row["phase"], row["state"]) == (cell, "search", "COMPLETE")
    ]
    return [json.loads(row["params"]) for row in sorted(rows, key=lambda row: sign * row[metric])]


def warmed(folder: Path, *arms: Arm, points: int = 3, **changes: Any) -> Study:
    budget = Budget(trials=6, epochs=4, seeds=1)
    return toy((BASELINE, *arms), task=TASK, budget=budget, warm_start=WarmStart(folder, points), **changes)


def test_best_completed_configurations_of_the_same_cell_are_tried_first(earlier: Path, tmp_path: Path) -> None:
    study = warmed(earlier, dataclasses.replace(SEARCHED, first=FIRST))
    best = ranked(earlier, "student / searched")[:3]
    assert read_warm_start(study) == {"student / searched": best}
    assert proposed(study, tmp_path / "new")[:4] == [{"x": 0.5}, *best]


def proposed(study: Study, folder: Path, rows: int | None = None, warm: Any = None) -> list[dict[str, Any]]:
    records = Records(folder / study.name, study.task.metrics)
    points = read_warm_start(study) if warm is None else warm
    coordinator = Coordinator(study, records, optuna.storages.InMemoryStorage(), [], {"data": "simulated"}, points)
    coordinator.writer.flush_seconds = 0.0
    replay_records(coordinator)
    drive(coordinator, folder, rows)
    found = [row for row in records.trials.read_rows() if row["phase"] == "search"]
    return [json.loads(row["params"]) for row in sorted(found, key=lambda row: row["number"])]


def test_stopped_trials_do_not_count(tmp_path: Path) -> None:
    folder = finished(toy((BASELINE, SEARCHED), name="halved", task=TASK), tmp_path)
    complete = ranked(folder, "student / searched")
    assert len(complete) < 9
    assert read_warm_start(warmed(folder, SEARCHED, points=9)) == {"student / searched": complete}


def test_earlier_study_is_ranked_by_its_own_metric(tmp_path: Path) -> None:
    cheap = toy((BASELINE, SEARCHED), name="cheap", task=TASK, metric="val/cost", budget=Budget(8, 4, 1))
    folder = finished(cheap, tmp_path)
    best = ranked(folder, "student / searched", "val/cost", sign=1)[:3]
    assert read_warm_start(warmed(folder, SEARCHED)) == {"student / searched": best}


def test_cell_of_another_name_learns_from_the_only_one_of_the_same_parameters(earlier: Path) -> None:
    renamed = dataclasses.replace(SEARCHED, name="renamed")
    assert read_warm_start(warmed(earlier, renamed, points=2)) == {
        "student / renamed": ranked(earlier, "student / searched")[:2]
    }


def test_cell_does_not_learn_from_one_of_several_that_are_alike(tmp_path: Path) -> None:
    arms = (BASELINE, SEARCHED, dataclasses.replace(SEARCHED, name="twin"))
    folder = finished(toy(arms, name="twins", task=TASK, budget=Budget(4, 3, 1)), tmp_path)
    with pytest.raises(InputError, match=r"no completed search trial of .*twins lies in a search space"):
        read_warm_start(warmed(folder, dataclasses.replace(SEARCHED, name="renamed")))


def test_configurations_outside_the_space_are_skipped_and_other_cells_start_from_scratch(earlier: Path) -> None:
    everything = ranked(earlier, "student / searched")
    middle = sorted(params["x"] for params in everything)[len(everything) // 2]
    narrow = Arm("searched", SimulatedLoss(x=uniform(0, middle), gain=0.05))
    wider = Arm("wider", SimulatedLoss(x=uniform(0, 1), y=uniform(0, 1)))
    expected = [params for params in everything if params["x"] <= middle]
    assert read_warm_start(warmed(earlier, narrow, wider, points=99)) == {"student / searched": expected}


def test_equal_configurations_count_once(tmp_path: Path) -> None:
    options = Arm("searched", SimulatedLoss(x=choice(0.1, 0.3, 0.5)))
    folder = finished(toy((BASELINE, options), name="few", task=TASK, budget=Budget(12, 2, 1)), tmp_path)
    (found,) = read_warm_start(warmed(folder, options, points=9)).values()
    assert len(found) == len({params["x"] for params in found}) <= 3


@pytest.mark.parametrize("stop_after", [2, 7, 12])
@pytest.mark.parametrize("sampler", [Tpe(startup_trials=3), CmaEs(population=4)])
def test_resumed_study_proposes_the_same_though_the_earlier_one_is_gone(
    earlier: Path, tmp_path: Path, stop_after: int, sampler: Any
) -> None:
    study = warmed(earlier, SEARCHED, sampler=sampler)
    pinned = json.loads(json.dumps(read_warm_start(study)))
    whole = proposed(study, tmp_path / "whole")
    proposed(study, tmp_path / "cut", rows=stop_after)
    shutil.rmtree(earlier)
    assert proposed(study, tmp_path / "cut", warm=pinned) == whole


def test_configurations_carry_over_and_scores_do_not(earlier: Path, tmp_path: Path) -> None:
    study = warmed(earlier, SEARCHED)
    storage = optuna.storages.InMemoryStorage()
    Coordinator(study, Records(tmp_path / "new", TASK.metrics), storage, [], {}, read_warm_start(study))
    assert optuna.load_study(study_name="student / searched", storage=storage).trials == []


def test_where_the_earlier_study_lies_is_not_what_a_study_is() -> None:
    one, two = (describe(warmed(Path(path), SEARCHED)) for path in ("/a", "/b"))
    assert one == two
    assert one["warm_start"]["points"] == 3


def test_study_without_a_warm_start_has_no_such_points() -> None:
    assert read_warm_start(toy()) == {}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "warm_start: .*earlier is no study, it has no study.json"),
        (lambda folder: (folder / "study.json").write_text("{"), "warm_start: .*study.json is damaged"),
        (lambda folder: (folder / "study.json").write_text("{}"), "names no cells or no metric"),
        (lambda folder: shutil.rmtree(folder / "trials"), "no completed search trial"),
    ],
)
def test_earlier_study_that_cannot_be_read_is_refused_in_one_line(earlier: Path, prepare: Any, message: str) -> None:
    prepare(earlier)
    with pytest.raises(InputError, match=message) as error:
        read_warm_start(warmed(earlier, SEARCHED))
    assert "\n" not in str(error.value)

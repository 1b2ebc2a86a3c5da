"""A node that joins after a study's start runs no trial with other software, or on another disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from study.cluster.software_check import differences, software
from study.execution.tune_bridge import StopTuning, TuneBridge
from study.execution.worker import Worker, WorkerContext
from study.records.segments import RecordsError
from tests.study import toy


@pytest.fixture
def workplace(tmp_path: Path) -> WorkerContext:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "study.json").touch()
    return WorkerContext(tmp_path / "toy", tmp_path, software=software())


def test_software_is_told_with_versions_and_the_code_itself() -> None:
    found = software()
    assert list(found) == ["python", "ray", "torch", "kdstudy's study", "kdstudy's trainables"]
    assert all(found.values())


def test_differences_name_what_is_lacking_and_what_is_another() -> None:
    here = {"torch": "2.5", "ray": "2.60.0", "python": "3.11.7"}
    assert differences(here, here) == ""
    there = {"torch": "2.4", "ray": "", "python": "3.11.7"}
    assert differences(there, here) == "has torch 2.4 where the driver has 2.5, lacks ray"


def test_node_like_the_drivers_has_no_problem(workplace: WorkerContext) -> None:
    assert workplace.problem() == ""


def test_node_with_other_software_is_named_with_the_way_out(workplace: WorkerContext) -> None:
    other = replace(workplace, software=software() | {"torch": "1.0"})
    assert "where the driver has 1.0: install the same on every node" in other.problem()


def test_node_that_does_not_see_the_study_is_named_with_the_way_out(workplace: WorkerContext) -> None:
    (workplace.study_folder / "study.json").unlink()
    assert f"storage {workplace.storage} is not shared by all nodes" in workplace.problem()
    assert replace(workplace, software={}).problem() == "", "one machine alone shares with nobody"


def test_such_a_node_ends_the_run_and_fails_no_trial(workplace: WorkerContext, tmp_path: Path) -> None:
    study = toy.toy()
    flow = toy.open_flow(study, tmp_path)
    door = TuneBridge(flow, workplace, lambda: "", print, lambda: 1)
    assert door.open("tune's name") is not None
    told = Worker(study, replace(workplace, software={"torch": "1.0"}), 0.0).step()
    with pytest.raises(StopTuning) as left:
        door.hear("tune's name", json.dumps(asdict(told)))
    assert isinstance(left.value.__cause__, RecordsError)
    assert len(flow.running) == 1

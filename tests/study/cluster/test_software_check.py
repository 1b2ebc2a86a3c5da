"""A node that joins after a study's start runs no trial with other software, or on another disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from study.cluster.software_check import describe_differences, read_needed_versions
from study.execution.tune_bridge import StopTuning, TuneBridge
from study.execution.worker import Worker
from study.execution.worker_context import WorkerContext
from study.records.parquet_table import RecordsError
from tests.study import toy


@pytest.fixture
def context(tmp_path: Path) -> WorkerContext:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "study.json").touch()
    return WorkerContext(tmp_path / "toy", tmp_path, software=read_needed_versions())


def test_versions_include_a_digest_of_the_code() -> None:
    versions = read_needed_versions()
    assert list(versions) == ["python", "ray", "torch", "kdstudy's study", "kdstudy's trainables"]
    assert all(versions.values())


def test_differences_name_missing_and_other_versions() -> None:
    here = {"torch": "2.5", "ray": "2.60.0", "python": "3.11.7"}
    assert describe_differences(here, here) == ""
    there = {"torch": "2.4", "ray": "", "python": "3.11.7"}
    assert describe_differences(there, here) == "has torch 2.4 where the driver has 2.5, lacks ray"


def test_node_with_the_drivers_software_has_no_problem(context: WorkerContext) -> None:
    assert context.find_problem() == ""


def test_node_with_other_software_is_named_with_the_way_out(context: WorkerContext) -> None:
    other = replace(context, software=read_needed_versions() | {"torch": "1.0"})
    assert "where the driver has 1.0: install the same on every node" in other.find_problem()


def test_node_that_does_not_see_the_study_is_named_with_the_way_out(context: WorkerContext) -> None:
    (context.study_folder / "study.json").unlink()
    assert f"storage {context.storage} is not shared by all nodes" in context.find_problem()
    assert replace(context, software={}).find_problem() == "", "one machine alone shares with nobody"


def test_node_with_a_problem_ends_the_run_and_fails_no_trial(context: WorkerContext, tmp_path: Path) -> None:
    study = toy.toy()
    coordinator = toy.open_coordinator(study, tmp_path)
    bridge = TuneBridge(coordinator, context, lambda: "", print, lambda: 1)
    assert bridge.next_trial("tune's name") is not None
    report = Worker(study, replace(context, software={"torch": "1.0"}), 0.0).step()
    with pytest.raises(StopTuning) as stopped:
        bridge.handle_report("tune's name", json.dumps(asdict(report)))
    assert isinstance(stopped.value.__cause__, RecordsError)
    assert len(coordinator.running) == 1

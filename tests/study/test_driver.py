"""A run from its checks to its last write, with training in this process: no Ray."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from study import Arm, Budget, Study, driver
from study.code_version import CodeVersion
from study.engine.coordinator import Coordinator
from study.preflight import DriverOptions
from study.records.study_json import read_study
from study.space_file import Space
from tests.study import toy
from trainables.tasks.simulated import Fault, SimulatedLoss

CODE = CodeVersion({"space file": "0" * 16})


def run(study: Study, storage: Path) -> driver.Outcome:
    space = Space(study, types.ModuleType("toy"), Path("toy.py"), "", "", CODE)
    inputs, command = {"data": {"fingerprint": "none"}}, "python -m study.run toy.py"
    return driver.drive(study, space, inputs, DriverOptions(storage), command, Console(quiet=True))


def train(coordinator: Coordinator, _: Space, options: DriverOptions, *__: object) -> str:
    assert toy.drive(coordinator, options.storage)
    coordinator.writer.flush()
    return ""


def raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_costs_that_were_cut_short_are_measured_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = toy.toy()
    monkeypatch.setattr(driver, "_train", train)
    with monkeypatch.context() as busy:
        busy.setattr(driver, "add_model_costs", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(study, tmp_path)
    assert not read_study(tmp_path / "toy")["finished"]
    assert run(study, tmp_path) == driver.Outcome([])
    assert read_study(tmp_path / "toy")["finished"]


def test_checkpoints_that_a_killed_run_left_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = toy.toy()
    toy.drive(toy.open_coordinator(study, tmp_path), tmp_path, rows=40)  # and is killed before it deletes any
    trials = pd.read_parquet(tmp_path / "toy" / "trials").drop_duplicates("trial_id", keep="last")
    ended = trials[trials.state.isin(["COMPLETE", "PRUNED"])]
    for trial_id in trials.trial_id:
        (tmp_path / "toy" / "checkpoints" / trial_id).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(driver, "_train", lambda *_: "stopped")
    assert run(study, tmp_path).stopped == "stopped"
    kept = {path.name for path in (tmp_path / "toy" / "checkpoints").iterdir()}
    assert kept == set(trials.trial_id) - set(ended[ended.phase == "search"].trial_id) != set(trials.trial_id)


def test_study_whose_other_trials_failed_starts_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = toy.toy((toy.BASELINE, Arm("bad", SimulatedLoss(fault=Fault("exception", epoch=2)))))
    with monkeypatch.context() as here:
        here.setattr(driver, "_train", train)
        outcome = run(study, tmp_path)
    assert len(outcome.problems) == 1
    monkeypatch.setattr("study.cluster.connection.connect", raise_interrupt)
    assert run(study, tmp_path) == outcome
    recorded = read_study(tmp_path / "toy")
    assert [run["seconds"] > 0 for run in recorded["provenance"]["runs"][1:]] == [True]
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(study, budget=Budget(trials=9, epochs=6, seeds=4)), tmp_path)

"""A run from its checks to its last write, with training in this process: no Ray."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
from rich.console import Console

from study import driver
from study.code_version import CodeVersion
from study.engine.coordinator import Coordinator
from study.preflight import DriverOptions
from study.records.study_json import read_study
from study.space_file import Space
from tests.study import toy

CODE = CodeVersion({"space file": "0" * 16})


def test_costs_that_were_cut_short_are_measured_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = toy.toy()
    space = Space(study, types.ModuleType("toy"), Path("toy.py"), "", "", CODE)
    inputs = {"data": {"fingerprint": "none"}}

    def train(coordinator: Coordinator, *_: object) -> str:
        assert toy.drive(coordinator, tmp_path)
        coordinator.writer.flush()
        return ""

    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    def run() -> driver.Outcome:
        command, console = "python -m study.run toy.py", Console(quiet=True)
        return driver.drive(study, space, inputs, DriverOptions(tmp_path), command, console)

    monkeypatch.setattr(driver, "_train", train)
    with monkeypatch.context() as busy:
        busy.setattr(driver, "add_model_costs", cut_short)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not read_study(tmp_path / "toy")["finished"]
    assert run() == driver.Outcome([])
    assert read_study(tmp_path / "toy")["finished"]

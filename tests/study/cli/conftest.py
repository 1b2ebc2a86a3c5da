"""The folder that commands are given as --storage-path, and runs of theirs without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study import driver
from study.engine.coordinator import Coordinator
from study.preflight import DriverOptions
from study.space_file import Space
from tests.study import toy


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch, own_path: None, digests_once: None) -> None:
    """Let runs in this process train one trial after the other, and write what they do otherwise."""

    def train(coordinator: Coordinator, space: Space, options: DriverOptions, *given: Any) -> str:
        document = given[-1]
        driver.write_study(coordinator.writer.records.folder, document)
        with driver._writing_at_exit(coordinator, document):
            assert toy.drive(coordinator, options.storage)
        return ""

    monkeypatch.setattr(driver, "_train", train)

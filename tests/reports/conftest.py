from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from reports.build import build
from tests.reports.fake_study import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """An empty study that `fill` gives rows and `write` puts on disk."""
    return Writer(tmp_path / "fake")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of three arms and eight seeds, for tests that only read it."""
    return Writer(tmp_path_factory.mktemp("finished") / "fake").fill().write()


@pytest.fixture(scope="session")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That folder with its report, for tests that only read it."""
    folder = copytree(finished, tmp_path_factory.mktemp("reported") / "fake")
    build(folder)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study that may be changed."""
    return copytree(finished, tmp_path / "fake")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Writer]:
    """A study of this name whose trials are its own, its scores by arm shifted and its seeds renumbered."""

    def made(name: str, shift: float = 0.0, seeds_from: int = 1000) -> Writer:
        writer = Writer(tmp_path / name)
        writer.arms = {arm: [value + shift for value in values] for arm, values in writer.arms.items()}
        for row in writer.fill().trials:
            row["trial_id"] = f"{name}-{row['trial_id']}"
            row["seed"] += seeds_from - 1000
        for row in writer.epochs:
            row["trial_id"] = f"{name}-{row['trial_id']}"
        return writer

    return made

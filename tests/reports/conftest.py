from __future__ import annotations

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

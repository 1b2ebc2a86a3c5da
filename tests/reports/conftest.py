from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.fake_study import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """An empty study that `fill` gives rows and `write` puts on disk."""
    return Writer(tmp_path / "fake")


@pytest.fixture
def study(writer: Writer) -> Path:
    """The folder of a finished study of three arms and eight seeds."""
    return writer.fill().write()

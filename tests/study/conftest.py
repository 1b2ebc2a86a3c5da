"""A storage on S3, served on loopback, and what machines have of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from study.storage.locations import local_path
from tests.study import s3
from tests.study.s3 import Copy


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3.server() as address:
        yield address


@pytest.fixture
def copy(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Of this test's own storage, the copy that a machine has; another name is another machine."""
    for name, value in (s3.KEYS | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)

    def of_machine(machine: str = "here") -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        return local_path(f"s3://{s3.BUCKET}/{tmp_path.name}")

    return of_machine

"""A storage on S3, served on loopback, and what machines have of it; digests of code that are computed once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from study import code_version
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


digest_once = cache(code_version.digest_code)
"""The digest of a file, which is computed once for all tests: the two packages take most of a second."""


@pytest.fixture
def digests_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version, "digest_code", digest_once)


@pytest.fixture
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the folders of other tests' space files out of the path: their modules have the same names."""
    temporary = str(tmp_path.parents[1])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.startswith(temporary)])

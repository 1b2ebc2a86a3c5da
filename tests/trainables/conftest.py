"""One thread, as every trial has: more round otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainables.small import TASK, prepared


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def derived_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests draw and compute is kept for them alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("derived")))
        yield


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the small task's teacher and its outputs."""
    path = tmp_path_factory.mktemp("storage")
    prepared(TASK, path)
    return path

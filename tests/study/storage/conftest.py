"""Fixtures of storages on S3."""

from __future__ import annotations

import pytest

from study.storage import lease, local_copy


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits for leases, locks and pushes."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(local_copy, "LOCK_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(lease, "PUSH_SECONDS", 0.05)

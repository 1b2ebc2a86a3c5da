"""Shared files on S3: fetched and verified once per node, and fetched again where a copy is damaged."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from study.storage.locations import mirror_of
from study.storage.mirror import Mirror
from study.storage.verified_copy import DamagedCopyError, pull_verified
from tests.study import s3
from tests.study.s3 import Copy, put


def is_fine(path: Path) -> bool:
    return path.read_text().startswith("fine")


def test_shared_files_are_fetched_and_verified_once(copy: Copy) -> None:
    here = copy()
    put(here, outputs__a="fine 1", outputs__b="fine 2")
    mirror_of(here).push("outputs")
    other, verified = copy("other"), []

    def verify(path: Path) -> bool:
        verified.append(path.name)
        return is_fine(path)

    mirror = mirror_of(other)
    threads = [threading.Thread(target=pull_verified, args=(mirror, ("outputs",), verify)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verified) == ["a", "b"]
    assert s3.local_files(other) == {"outputs/a": b"fine 1", "outputs/b": b"fine 2"}


def test_damaged_copy_is_fetched_again_and_a_damaged_original_is_named(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    put(here, outputs__a="fine")
    mirror_of(here).push("outputs")
    other, fetch, broken = copy("other"), Mirror._download, iter(["once"])

    def torn(self: Mirror, info: Any, path: Path) -> None:
        fetch(self, info, path)
        if next(broken, None):
            path.write_text("torn")

    monkeypatch.setattr(Mirror, "_download", torn)
    pull_verified(mirror_of(other), ("outputs",), is_fine)
    assert s3.local_files(other) == {"outputs/a": b"fine"}
    put(here, outputs__a="damaged")
    mirror_of(here).push("outputs")
    with pytest.raises(DamagedCopyError, match=r"s3://bucket/.*/outputs/a is damaged: delete it there"):
        pull_verified(mirror_of(other), ("outputs",), is_fine)

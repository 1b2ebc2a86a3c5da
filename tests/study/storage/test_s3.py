"""Errors of S3 in one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from study.storage.mirror import Mirror
from study.storage.s3 import StorageError


def test_full_local_disk_is_not_reported_as_an_error_of_the_server(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "s3://bucket/x")
    message = f"^{tmp_path} cannot be written .No space left on device.: make room there$"
    with pytest.raises(StorageError, match=message), mirror.translate_errors():
        raise OSError(errno.ENOSPC, "No space left on device")  # as copying says it, without a file's name

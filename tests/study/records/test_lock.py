"""The lock of a study's folder, requests to stop, and names that are free."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from study.errors import InputError
from study.records.lock import (
    check_writable,
    clear_stop_request,
    find_unused_name,
    is_stop_requested,
    lock_study,
    read_lock_holder,
    request_stop,
)


def test_locked_study_names_its_holder_and_refuses_a_second_one(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    with lock_study(folder):
        assert read_lock_holder(folder) == f"{os.uname().nodename}:{os.getpid()}"
        with pytest.raises(InputError, match=f"is being run by another process .*:{os.getpid()}"), lock_study(folder):
            pass
    assert read_lock_holder(folder) == ""
    assert read_lock_holder(tmp_path / "never run") == ""


def test_stop_request_of_a_previous_run_is_cleared_and_so_is_the_own_one_at_the_end(tmp_path: Path) -> None:
    request_stop(tmp_path)
    with clear_stop_request(tmp_path):
        assert not is_stop_requested(tmp_path)
        request_stop(tmp_path)
        assert is_stop_requested(tmp_path)
    assert not is_stop_requested(tmp_path)


def test_first_unused_name_counts_from_two(tmp_path: Path) -> None:
    assert find_unused_name(tmp_path, "toy") == "toy"
    for name in ("toy", "toy-2"):
        (tmp_path / name).mkdir()
    assert find_unused_name(tmp_path, "toy") == "toy-3"


def test_storage_that_cannot_be_written_is_refused_and_another_is_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*--storage-path"):
        check_writable(tmp_path / "file")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, errno.EINVAL, errno.EPERM])
def test_file_system_without_locks_is_no_other_process(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"toy cannot be locked \(.+\), .*--storage-path on another file system"
    with pytest.raises(InputError, match=message), lock_study(tmp_path / "toy"):
        pass
    assert read_lock_holder(tmp_path / "toy") == ""


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES])
def test_every_sign_of_a_held_lock_is_another_process(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="is being run by another process"), lock_study(tmp_path / "toy"):
        pass

"""The right to write in a study's folder: one process at a time, which others can ask to stop or to skip a trial."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from study.errors import InputError
from study.records.paths import StudyPaths

LOCK_ATTEMPTS = 4
LOCK_RETRY_SECONDS = 0.1
"""`list` and `show` hold a shared lock for a moment; a run waits for them."""

BUSY = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
"""Errors by which a lock is held elsewhere; any other one means that the file system cannot lock."""

PROBE_BYTES = 2**16
"""Size of the file that tests whether a folder can be written: an empty file fits on a full disk."""


def check_writable(storage: Path) -> None:
    """Raise InputError if nothing can be written below `storage`."""
    probe = storage / f".writable-{platform.node()}-{os.getpid()}"
    try:
        storage.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"storage path {storage} cannot be written ({error.strerror}): give another with --storage-path"
        ) from None


def find_unused_name(storage: Path, name: str) -> str:
    """Return the first of name, name-2, name-3, … that is no folder yet."""
    unused, number = name, 2
    while (storage / unused).exists():
        unused, number = f"{name}-{number}", number + 1
    return unused


@contextmanager
def lock_study(folder: Path) -> Iterator[None]:
    """Hold the study's lock. The system releases it when the process ends, however it ends.

    Raises InputError if another process holds it or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = StudyPaths(folder).lock.open("a+")
    except OSError as error:
        raise InputError(f"study folder {folder} cannot be used ({error.strerror}): give another --name") from None
    with lock as file:
        if not _try_lock(file):
            file.seek(0)
            raise InputError(
                f"{folder} is being run by another process ({file.read().strip() or 'unknown'}): "
                "wait for it, or give this study another --name"
            )
        file.truncate(0)
        try:
            file.write(f"{platform.node()}:{os.getpid()}")
            file.flush()
        except OSError as error:
            raise InputError(
                f"study folder {folder} cannot be written ({error.strerror}): free disk space, or give another "
                "--storage-path"
            ) from None
        yield


def _try_lock(file: IO[str]) -> bool:
    """Return whether the file could be locked. Raises InputError if its file system has no locks."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in BUSY:
                raise InputError(
                    f"{Path(file.name).parent} cannot be locked ({error.strerror}), and nothing else keeps two runs "
                    "out of one study: give a --storage-path on another file system, or mount this one with locks"
                ) from None
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            return True
    return False


def read_lock_holder(folder: Path) -> str:
    """Return host:pid of the process that holds the study's lock; empty if none does or the file cannot be read."""
    try:
        with StudyPaths(folder).lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:  # a file system without locks has no holders either
                return (file.read().strip() or "unknown") if error.errno in BUSY else ""
    except OSError:
        pass
    return ""


def request_stop(folder: Path) -> None:
    """Ask the process that runs this study, on whichever machine, to interrupt it."""
    StudyPaths(folder).stop_request.touch()


def is_stop_requested(folder: Path) -> bool:
    return StudyPaths(folder).stop_request.exists()


def request_skip(folder: Path, trial_id: str) -> None:
    """Ask the process that runs this study, or the next one that does, to end a search trial after its epoch."""
    with StudyPaths(folder).skip_requests.open("a", encoding="utf-8") as file:  # appended: others may ask at once
        file.write(f"{trial_id}\n")


def read_skip_requests(folder: Path) -> frozenset[str]:
    """Return the ids of all trials that were asked to be skipped; they may have ended."""
    try:
        return frozenset(StudyPaths(folder).skip_requests.read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


@contextmanager
def clear_stop_request(folder: Path) -> Iterator[None]:
    """Clear a stop request left by a previous run on entry, and one to this run on exit."""
    request = StudyPaths(folder).stop_request
    request.unlink(missing_ok=True)
    try:
        yield
    finally:
        request.unlink(missing_ok=True)

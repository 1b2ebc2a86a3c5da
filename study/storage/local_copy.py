"""This machine's copy of a study on S3: its lock, the id of the driver's run that wrote it, and its update from S3."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.atomic import atomic_write
from study.records.lock import BUSY
from study.records.paths import EPOCHS, REPORT, SKIP_REQUESTS, STUDY_JSON, TRIALS
from study.storage.mirror import Mirror
from study.storage.s3 import make_lock_error

LOCK_WAIT_SECONDS = 10.0
"""Time for which a driver waits for commands that are updating the copy."""

COPY_ID_FILE = ".mark"


def pull_study(mirror: Mirror, study: str) -> None:
    """Copy a study's rows from S3; set aside those of a driver on this machine that had progressed further."""
    folder = mirror.folder / study
    backup = folder / f".left-{read_copy_id(folder)}"
    for name in (TRIALS, EPOCHS) if read_copy_id(folder) and not backup.exists() else ():
        shutil.copytree(folder / name, backup / name, dirs_exist_ok=True)
    # trials first: a trial that has ended there has all its epochs there
    mirror.pull(*(f"{study}/{name}" for name in (STUDY_JSON, SKIP_REQUESTS, REPORT, TRIALS, EPOCHS)), delete=True)


def read_copy_id(folder: Path) -> str:
    """Return the id of this machine's copy of a study; empty if it never was a driver's."""
    file = folder / COPY_ID_FILE
    return file.read_text() if file.is_file() else ""


def write_copy_id(folder: Path, copy_id: str) -> None:
    with atomic_write(folder / COPY_ID_FILE) as temporary:
        temporary.write_text(copy_id)


@contextmanager
def wait_for_lock(folder: Path) -> Iterator[bool]:
    """Try the lock of this machine's copy for LOCK_WAIT_SECONDS; yield whether it was acquired."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        with try_lock(folder) as locked:
            if locked or time.monotonic() > deadline:
                yield locked
                return
        time.sleep(0.2)


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Try to lock this machine's copy of a study against its other processes; yield whether that succeeded.

    Raises StorageError if its file system has no locks.
    """
    with (folder / ".mirror.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in BUSY:
                raise make_lock_error(folder, error) from None
            yield False
        else:
            yield True

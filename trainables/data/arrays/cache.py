"""Where data that follows from other data is kept: made once, for all processes and studies on a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from study.errors import InputError

Read = TypeVar("Read")

_CHECKSUM = "sha256"
"""The file in a sealed folder that says what was put there."""


def get_cache_folder(kind: str) -> Path:
    """The folder for one kind of derived data, below $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time.

    A relative $XDG_CACHE_HOME counts for nothing. Source: XDG Base Directory Specification 0.8, basics.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "kdstudy" / kind


def load_or_make(folder: Path, name: str, read: Callable[[Path], Read | None], make: Callable[[Path], None]) -> Read:
    """What `read` finds in `folder`; where that is None, after `make` has filled a folder that takes its place.

    The folder is whole or absent. Of two processes that want it at once one makes it, and the other waits.
    Raises InputError, telling by `name` what it is about, if it cannot be written.
    """
    found = read(folder)
    if found is not None:
        return found
    try:
        with _lock_folder(folder, name):
            found = read(folder)
            if found is None:
                _replace_folder(folder, make)
                found = read(folder)
    except OSError as error:
        raise InputError(
            f"{name} cannot be written to {folder.parent} ({error.strerror}): "
            "name a folder that can be written in XDG_CACHE_HOME"
        ) from None
    if found is None:
        raise InputError(
            f"{name} cannot be read back from {folder}: its disk is damaged; name another in XDG_CACHE_HOME"
        )
    return found


def _replace_folder(folder: Path, make: Callable[[Path], None]) -> None:
    # always the same name: what a killed process left is found and removed
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        make(aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Be the only process that makes this folder. The system lifts the lock when a process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: made by another process at this moment, waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_checksum(folder: Path) -> None:
    """Note what is in a folder, so that `sealed` knows it again."""
    (folder / _CHECKSUM).write_bytes(compute_checksum(folder))


def verify_checksum(folder: Path) -> Path | None:
    """The folder, if all is there as it was sealed, unchanged; files that a crash left half written are not."""
    try:
        return folder if (folder / _CHECKSUM).read_bytes() == compute_checksum(folder) else None
    except OSError:
        return None


def compute_checksum(folder: Path) -> bytes:
    """The SHA-256 of the names, sizes and contents of a folder's files, in hexadecimal digits."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):  # but of the checksum, which has no suffix
        data = path.read_bytes()
        content.update(f"{path.relative_to(folder)} {len(data)}\n".encode() + data)
    return content.hexdigest().encode()

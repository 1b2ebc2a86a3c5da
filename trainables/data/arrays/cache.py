"""Cache of derived data: folders below $XDG_CACHE_HOME, made once for all processes and studies of a machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from study.errors import InputError

Content = TypeVar("Content")

_CHECKSUM = "sha256"
"""The file in a folder with the checksum of all other files."""


def get_cache_folder(kind: str) -> Path:
    """Return the folder for one kind of derived data, below $XDG_CACHE_HOME or ~/.cache; it may be deleted at any time.

    A relative $XDG_CACHE_HOME is ignored.
    Raises InputError for a user without a home. Source: XDG Base Directory Specification 0.8, basics.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (given if given.is_absolute() else Path.home() / ".cache") / "kdstudy" / kind
    except RuntimeError:
        raise InputError("this user has no home folder: give one for derived data in XDG_CACHE_HOME") from None


def load_or_make(
    folder: Path, name: str, load: Callable[[Path], Content | None], make: Callable[[Path], None]
) -> Content:
    """Load the content of `folder`; if `load` returns None, replace the folder by one that `make` fills, and load that.

    The folder is complete or absent at any time. Of two processes that need it at once one makes it, the other waits.
    Raises InputError, which names the data by `name`, if the folder cannot be written.
    """
    content = load(folder)
    if content is not None:
        return content
    try:
        with _lock_folder(folder, name):
            content = load(folder)
            if content is None:
                _replace_folder(folder, make)
                content = load(folder)
    except OSError as error:
        raise InputError(
            f"{name} cannot be written to {folder.parent} ({error.strerror}): "
            "give a folder that can be written in XDG_CACHE_HOME"
        ) from None
    if content is None:
        raise InputError(
            f"{name} cannot be read back from {folder}: its disk is damaged; give another one in XDG_CACHE_HOME"
        )
    return content


def _replace_folder(folder: Path, make: Callable[[Path], None]) -> None:
    # always the same name, so that the remains of a killed process are found and removed
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        make(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Hold the exclusive right to make this folder. The system releases the lock when a process ends in any way."""
    import fcntl  # not before `study`, which refuses a system without it in one line

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: waiting for another process that is making it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_files(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Return `folder` if all its files are as `write` once wrote them, else written again: a crash may leave less.

    Raises InputError as `load_or_make` does.
    """

    def verify(folder: Path) -> Path | None:
        try:
            return folder if (folder / _CHECKSUM).read_bytes() == compute_checksum(folder) else None
        except OSError:
            return None

    def make(folder: Path) -> None:
        write(folder)
        (folder / _CHECKSUM).write_bytes(compute_checksum(folder))

    return load_or_make(folder, name, verify, make)


def compute_checksum(folder: Path) -> bytes:
    """Return the SHA-256 of the names, sizes and contents of a folder's files, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):  # all files but the checksum's, which has no suffix
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest().encode()

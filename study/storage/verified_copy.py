"""Copies of shared files on S3, such as a teacher's weights: fetched once per node, and each file verified."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from study.atomic import atomic_write
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError, make_lock_error

VERIFIED = ".verified"
"""File in a copy that lists the files found intact."""


class DamagedCopyError(StorageError):
    """A file that fails verification even after it was fetched again."""


def pull_verified(
    mirror: Mirror, paths: Sequence[str], is_intact: Callable[[Path], bool], delete: bool = False
) -> None:
    """Copy shared files from S3: one process of this node fetches and verifies them, the others wait for it.

    With `delete`, also delete local files that are gone on S3.
    Raises DamagedCopyError for a file that is not intact even after it was fetched again, and StorageError if S3 does
    not answer or denies access.
    """
    if not mirror.uri:
        return
    with lock_node(mirror.folder):
        mirror.pull(*paths, delete=delete)
        for file in _find_damaged(mirror, paths, is_intact):
            file.unlink()
            mirror.pull(str(file.relative_to(mirror.folder)))
        if damaged := _find_damaged(mirror, paths, is_intact):
            source = f"{mirror.uri}/{damaged[0].relative_to(mirror.folder)}"
            raise DamagedCopyError(f"{source} is damaged: delete it there, then run the command again")


def _find_damaged(mirror: Mirror, paths: Sequence[str], is_intact: Callable[[Path], bool]) -> list[Path]:
    """Return the local files that are damaged, checking only those that have changed since they were verified."""
    note = mirror.folder / VERIFIED
    verified = json.loads(note.read_text()) if note.is_file() else {}
    files = [file for path in paths for file in mirror.list_files(path)]
    states = {file: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    damaged = [file for file, state in states.items() if verified.get(str(file)) != state and not is_intact(file)]
    verified |= {str(file): state for file, state in states.items() if file not in damaged}
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps(verified))
    return damaged


@contextmanager
def lock_node(folder: Path) -> Iterator[None]:
    """Exclude this node's other processes. The system releases the lock when a process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".fetching").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise make_lock_error(folder, error) from None
        yield

"""Files of a Ray that is started on this machine: their folder, its object store, its token.

Imports nothing of Ray: doctor asks for the same before Ray starts.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from study.errors import InputError

SOCKET_CHARACTERS = 107 if sys.platform == "linux" else 103
"""Longest path of a Unix socket."""
SOCKET_PATH_CHARACTERS = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Part of such a path that Ray adds to its folder."""

SHARED_MEMORY = Path("/dev/shm")
STORE_BYTES, STORE_SHARE = 1e9, 0.1
"""Object store on disk, where there is no /dev/shm: more than a study needs, and at most a share of the free disk."""
MIN_STORE_BYTES = 80e6
"""Smallest object store that Ray starts with, which is one file, and a little more."""


def make_ray_folder() -> Path:
    """Return a folder for Ray's files that belongs to this user alone and whose path is short enough for sockets.

    It lies in $RAY_TMPDIR or the folder for temporary files, or in /tmp if their path is too long.
    Raises InputError if none of them can be used.
    """
    problems = []
    for parent in dict.fromkeys(_list_temporary_folders()):
        folder = parent / f"ray-{os.getuid()}"
        if len(str(folder)) + SOCKET_PATH_CHARACTERS > SOCKET_CHARACTERS:
            problems.append(f"the path of {parent} is too long for sockets")
            continue
        if not (str(folder).isascii() and str(folder).isprintable()):
            problems.append(f"{parent} has letters that Ray cannot read")
            continue
        try:
            return _make_private(folder)
        except OSError as error:
            problems.append(f"{parent} cannot be written ({error.strerror})")
    longest = SOCKET_CHARACTERS - SOCKET_PATH_CHARACTERS - len(f"/ray-{os.getuid()}")
    raise InputError(
        f"no folder for Ray's files: {'; '.join(problems)}: set TMPDIR to a folder that can be written, with a path of "
        f"at most {longest} characters, all of them ASCII"
    )


def _list_temporary_folders() -> list[Path]:
    given = [os.environ["RAY_TMPDIR"]] if os.environ.get("RAY_TMPDIR") else []
    try:
        given.append(tempfile.gettempdir())
    except FileNotFoundError:
        given.append(os.environ.get("TMPDIR") or "/tmp")
    return [Path(folder).absolute() for folder in (*given, "/tmp")]


def _make_private(folder: Path) -> Path:
    """Create a folder for this user alone, under another name if somebody else owns the first one."""
    with suppress(FileExistsError):
        folder.mkdir(mode=stat.S_IRWXU)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    tempfile.TemporaryFile(dir=folder).close()
    return folder


def choose_object_store(folder: Path) -> dict[str, Any]:
    """Return ray.init's arguments for its object store: none, or a small one if files must be small.

    Without a /dev/shm it is a small one on disk. Raises InputError if files may not be large enough.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = math.inf if limit == resource.RLIM_INFINITY else limit - 1e6  # the file is a little larger than the store
    if most < MIN_STORE_BYTES:
        raise InputError(
            f"files of at most {limit / 1e6:.0f} MB are allowed, and Ray needs one of {MIN_STORE_BYTES / 1e6:.0f} MB: "
            "raise the limit (ulimit -f)"
        )
    if not has_missing_shared_memory():
        return {} if most == math.inf else {"object_store_memory": math.floor(min(STORE_BYTES, most))}
    status = os.statvfs(folder)
    size = min(STORE_BYTES, STORE_SHARE * status.f_bavail * status.f_frsize, most)
    return {"object_store_memory": math.floor(size), "_plasma_directory": str(folder)}


def has_missing_shared_memory() -> bool:
    """Return whether this is a Linux without a /dev/shm that can be written, as in some containers."""
    return sys.platform == "linux" and not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK))


def find_home() -> str:
    """Return the user's home, or the folder of Ray's files for a user who has none: Ray wants one to be imported."""
    try:
        return str(Path.home())
    except RuntimeError:
        return str(make_ray_folder())


def provide_token() -> None:
    """Set a token for this process and those it starts, if Ray would want to keep one in a home that is not there."""
    wants_file = not any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if wants_file and not has_writable_home():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def has_writable_home() -> bool:
    """Return whether Ray can keep its token in ~/.ray, or has one there."""
    try:
        token = Path.home() / ".ray" / "auth_token"
        if token.exists():  # a folder, if a container mounts a token that is not there
            return bool(token.read_text().strip())
        token.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=token.parent).close()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: this user has no home
        return False
    return True

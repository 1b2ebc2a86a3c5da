"""Limits of this machine for a Ray that is started here: CPUs, processes, folders for Ray's files, a token.

Imports nothing of Ray: --dry-run and doctor ask for the same limits before Ray starts.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import signal
import socket
import stat
import sys
import tempfile
import threading
import warnings
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

LOOPBACK_SECONDS = 5.0
"""Time in which a machine answers itself, which takes microseconds, however busy it is."""

RAY_FILES = 128
"""Open files of each of Ray's own processes: measured with Ray 2.60, 60 on 2 cores; with 64 allowed the driver dies."""

BUSY = 4.0
"""Processes that compete for each core on a machine that counts as busy."""

RAY_THREADS, WORKER_THREADS = 180, 30
"""Threads of Ray's own processes and the driver, and of each worker: measured with Ray 2.60, 174 and 25, on 2 cores."""


def count_cpus() -> int:
    """Return the number of CPUs this process may use: by affinity, a container's quota, Slurm and process limits.

    Raises InputError for joblib's own limit, LOKY_MAX_CPU_COUNT, if it is no number.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # joblib warns of a machine on which it starts no processes, which none asks for
        import joblib  # type: ignore[import-untyped]  # here, as it takes a tenth of a second

    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    try:
        cpus = min(int(joblib.cpu_count()), int(given) if given.isdecimal() else sys.maxsize)
    except ValueError:
        limit = os.environ.get("LOKY_MAX_CPU_COUNT")
        raise InputError(f"LOKY_MAX_CPU_COUNT={limit} is no number of CPUs: unset it, or give one") from None
    return max(1, min(cpus, int(min(count_threads_left(cpus)[0], 1e6) - RAY_THREADS) // WORKER_THREADS))


def list_start_options() -> dict[str, Any]:
    """Return the arguments with which ray.init starts on this machine, and provide what it needs.

    Raises InputError for a machine on which Ray cannot start.
    """
    check_process_limit()
    check_file_limit()
    check_loopback()
    provide_token()
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]  # Ray's own processes would end at their first deprecation
    folder = make_ray_folder()
    return {"num_cpus": count_cpus(), "_temp_dir": str(folder), **choose_object_store(folder)}


def interrupt_on_end_signals() -> None:
    """Let SIGTERM, as of batch systems, and SIGHUP, as of a closed terminal, interrupt this process like Ctrl-C.

    A signal that is ignored, as under nohup, stays so. Only the main thread can set signals; in others nothing changes.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)


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


def check_process_limit() -> None:
    """Raise InputError if this user, or this container, may not start the threads of Ray and of one worker.

    Ray itself would wait for minutes and then give no cause.
    """
    left, way_out = count_threads_left(1)
    if left < RAY_THREADS + WORKER_THREADS:
        raise InputError(
            f"{left:.0f} more processes and threads are allowed, and Ray needs about {RAY_THREADS} and "
            f"{WORKER_THREADS} for each CPU: {way_out}"
        )


def check_file_limit() -> None:
    """Raise InputError if Ray, which raises the soft limit of open files to the hard one, may not open enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < RAY_FILES:
        raise InputError(f"{hard} open files are allowed, and Ray needs {RAY_FILES}: raise the limit (ulimit -Hn)")


def check_loopback() -> None:
    """Raise InputError if processes cannot reach each other at 127.0.0.1, for which Ray would wait minutes."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), LOOPBACK_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"127.0.0.1 cannot be reached ({error.strerror or error}), by which Ray's processes connect: bring the "
            "loopback interface up, as in a sandbox without network (ip link set lo up)"
        ) from None


def count_threads_left(cpus: int) -> tuple[float, str]:
    """Return how many threads may still be started, and how to raise their limit; infinity if surely enough for `cpus`.

    The limit of a user does not bind root.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    binds = soft != resource.RLIM_INFINITY and os.geteuid() != 0 and Path("/proc/self/task").is_dir()
    # threads are counted only where it matters: on a large machine that takes a while
    binds = binds and soft < 10 * (RAY_THREADS + cpus * WORKER_THREADS)
    user = soft - _count_threads(os.getuid()) if binds else math.inf
    return min((user, "raise the limit (ulimit -u)"), (_read_container_limit(), "raise it (docker run --pids-limit)"))


def describe_memory_limit() -> str:
    """Return a clause on a limit of this process's virtual memory, of which Ray reserves much; empty without one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return (
        "" if soft == resource.RLIM_INFINITY else f"; ulimit -v allows {soft / 1e9:.1f} GB, which Ray may need more of"
    )


def describe_load() -> str:
    """Return a clause on the work that keeps this machine busy, for which Ray's processes wait; empty if it is not."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"; {load:.0f} processes compete for {cores} cores: try again when fewer do" if load > BUSY * cores else ""


def _count_threads(user: int) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            count += len(list((process / "task").iterdir())) if process.stat().st_uid == user else 0
        except OSError:
            continue  # ended meanwhile
    return count


def _read_container_limit() -> float:
    try:
        limit = Path("/sys/fs/cgroup/pids.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/pids.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return math.inf
    return int(limit) - used if limit.isdigit() else math.inf

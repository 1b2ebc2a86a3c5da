"""Limits of this machine for a Ray that is started here: CPUs, processes, open files, connections.

Imports nothing of Ray: --dry-run and doctor ask for the same limits before Ray starts.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from study.cluster.ray_files import choose_object_store, make_ray_folder, provide_token
from study.errors import InputError

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
        # joblib warns of a machine on which it starts no processes, which none asks for
        warnings.simplefilter("ignore")
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

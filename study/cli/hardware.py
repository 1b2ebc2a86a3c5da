"""Checks of `python -m study doctor` of the machine: cores, memory, disks, file locks, the clock."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.cli.output import format_bytes
from study.cluster.ray_files import (
    choose_object_store,
    has_missing_shared_memory,
    has_writable_home,
    make_ray_folder,
)
from study.cluster.this_machine import check_file_limit, check_loopback, check_process_limit, count_cpus
from study.errors import InputError

MIN_FREE_BYTES, LOW_FREE_BYTES = 1e8, 5e9
"""Free disk space below which nothing works, and below which checkpoints and a teacher's outputs may not fit."""

WORKER_BYTES = 1e9
"""Approximate memory of a worker that has imported torch."""

OPEN_FILES = 4096
"""Ray raises the soft limit to the hard one by itself, and warns below this."""

RAY_SHARE, RAY_LEAST_CAP_BYTES, RAY_SHM_SHARE = 0.3, 1e10, 0.95
"""Ray's object store takes this share of the memory, capped by this share of /dev/shm, but never below the cap."""

RAY_DISK_SHARE = 0.95
"""Ray stores nothing more on a disk that is fuller than this."""

CLOCK_SECONDS = 5.0
"""Tolerated difference of a file server's clock: users compare the times of a study's files and rows."""

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "beegfs", "gpfs", "ceph", "glusterfs", "afs", "fuse")

SECOND_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("refused")
"""

Level = Literal["ok", "warning", "fails"]


@dataclass(frozen=True)
class Finding:
    """The result of a check, with the way out if it is not ok."""

    level: Level
    message: str


def check_cores() -> Finding:
    """Check how many CPUs a study may use, which is how many trials run at once on a machine without GPUs."""
    cores, usable = os.cpu_count() or 1, count_cpus()
    if usable < cores:
        limits = "CPU set, container, Slurm or process limit"
        return Finding("ok", f"{cores} cores, {usable} of them usable here ({limits})")
    return Finding("ok", f"{cores} cores")


def check_ray_start() -> Iterator[Finding]:
    """Check what Ray needs of this machine before it starts: threads, a folder, a home and shared memory."""
    try:
        check_process_limit()
        check_file_limit()
        check_loopback()
        folder = make_ray_folder()
        choose_object_store(folder)
        yield Finding("ok", f"Ray's files: {folder}")
    except InputError as error:
        yield Finding("fails", str(error))
        return
    disk = shutil.disk_usage(folder)
    if disk.used / disk.total > RAY_DISK_SHARE:
        yield Finding("warning", f"{folder}: its disk is over 95 % full, where Ray stores nothing: free disk space")
    if not has_writable_home():
        message = "no home folder that can be written: set HOME to one, or XDG_CACHE_HOME for derived data"
        yield Finding("warning", message)
    if has_missing_shared_memory():
        yield Finding("warning", f"no /dev/shm: Ray's object store lies on disk, in {folder}, which is slower")


def check_memory(free: float, trials: int) -> Finding:
    """Check whether this many trials at once fit into `free` bytes of memory."""
    if free < trials * WORKER_BYTES:
        fit = max(1, int(free / WORKER_BYTES))
        message = f"memory: {format_bytes(free)} free, little for {trials} trials: --max-concurrent {fit}"
        return Finding("warning", message)
    return Finding("ok", f"memory: {format_bytes(free)} free")


def check_shared_memory(free: float, shared: float) -> Finding:
    """Check whether Ray's object store, on a machine with `free` bytes of memory, fits into `shared` bytes of /dev/shm.

    The rule is that of resolve_object_store_memory in ray/_private/utils.py.
    """
    store = min(RAY_SHARE * free, max(RAY_LEAST_CAP_BYTES, RAY_SHM_SHARE * shared))
    if shared < store:
        return Finding(
            "warning",
            f"/dev/shm: {format_bytes(shared)} free, less than the {format_bytes(store)} of Ray's object store, which "
            f"will lie on disk: make it larger, in a container by --shm-size={store / 1e9:.0f}gb",
        )
    return Finding("ok", f"/dev/shm: {format_bytes(shared)} free, Ray's object store takes {format_bytes(store)}")


def read_free_memory() -> float:
    """Return the free memory in bytes, within a container's limit."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    free = 1024.0 * int(lines["MemAvailable"].split()[0])
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text().strip() if Path(limit).is_file() else ""
        free = min(free, float(text)) if text.isdigit() else free
    return free


def check_open_files() -> Finding:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES:
        return Finding("warning", f"at most {limit} open files, Ray wants {OPEN_FILES}: raise it (ulimit -Hn)")
    return Finding("ok", f"open files: {'no limit' if limit == resource.RLIM_INFINITY else f'at most {limit}'}")


def check_storage(storage: Path) -> Iterator[Finding]:
    """Check space, permissions, file locks and the clock of the storage."""
    parent = next(path for path in (storage, *storage.parents) if path.exists())
    where = str(storage) if parent == storage else f"{storage}, to be made in {parent}"
    if not parent.is_dir():
        yield Finding("fails", f"storage {where}: {parent} is no folder: give another --storage-path")
        return
    free = shutil.disk_usage(parent).free
    level: Level = "fails" if free < MIN_FREE_BYTES else "warning" if free < LOW_FREE_BYTES else "ok"
    way_out = ": free disk space" if level != "ok" else ""
    yield Finding(level, f"storage {where}: {format_bytes(free)} free{way_out}")
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=parent) as probe:
            yield from _check_file(Path(probe) / "probe")
    except OSError as error:
        yield Finding("fails", f"storage {parent} cannot be written ({error.strerror}): give another --storage-path")


def _check_file(file: Path) -> Iterator[Finding]:
    """Check locks and clock with a new file on the storage."""
    file.write_text("")
    skew = file.stat().st_mtime - time.time()
    kind = find_file_system(file)
    system = f"file system {kind}{', over the network' if kind.split('.')[0] in NETWORK else ''}"
    if _locks_hold(file):
        yield Finding("ok", f"{system}: can be written, and its locks hold")
    else:
        yield Finding(
            "fails",
            f"{system}: its locks do not hold, so that nothing keeps two runs out of one study: mount it with locks "
            "(flock), or give another --storage-path",
        )
    if abs(skew) > CLOCK_SECONDS:
        yield Finding("warning", f"clock: the storage's is {skew:+.0f} s from this machine's: set both by NTP")
    else:
        yield Finding("ok", f"clock: {time.strftime('%Y-%m-%d %H:%M:%S %z')}, the storage agrees")


def _locks_hold(path: Path) -> bool:
    """Return whether a second process is refused the lock; emulated locks may admit the same process twice."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        words = [sys.executable, "-c", SECOND_LOCK, str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() == "refused"


def find_file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on; "unknown" if the system does not say."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():
        return "unknown"
    fields = [line.split() for line in mounts.read_text().splitlines()]
    points = [(point.replace("\\040", " "), kind) for _, point, kind, *_ in fields]
    containing = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    return max(containing, key=lambda pair: len(pair[0]), default=("", "unknown"))[1]

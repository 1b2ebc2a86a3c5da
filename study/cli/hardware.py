"""What a machine offers studies: cores, memory, disks, locks, a clock. The part of doctor.py that needs no packages."""

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

ROOM_BYTES, LITTLE_ROOM_BYTES = 1e8, 5e9
"""Free disk below which nothing works; below which checkpoints and a large teacher's outputs may not fit."""

WORKER_BYTES = 1e9
"""A worker with torch loaded, roughly."""

OPEN_FILES = 4096
"""Ray raises the soft limit to the hard one by itself, and warns below this."""

RAY_SHARE, RAY_LEAST_CAP_BYTES, RAY_SHM_SHARE = 0.3, 1e10, 0.95
"""Ray's object store takes this share of the memory, capped by this share of /dev/shm, but never below the cap."""

FULL = 0.95
"""Ray stores nothing more on a disk that is so full."""

CLOCK_SECONDS = 5.0
"""A file server's clock may be so far from ours: times of a study's files and rows are compared by people."""

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
    """What a check says."""

    level: Level
    says: str


def check_cores() -> Finding:
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    if usable < there:
        return Finding("warning", f"{there} cores, {usable} of them usable here: give --max-concurrent {usable}")
    return Finding("ok", f"{there} cores")


def check_memory(free: float, trials: int) -> Finding:
    """Whether so many trials at once fit."""
    if free < trials * WORKER_BYTES:
        fit = max(1, int(free / WORKER_BYTES))
        return Finding(
            "warning", f"memory: {format_gigabytes(free)} free, little for {trials} trials: --max-concurrent {fit}"
        )
    return Finding("ok", f"memory: {format_gigabytes(free)} free")


def check_shared_memory(free: float, shared: float) -> Finding:
    """Whether Ray's object store, of `free` memory, fits into /dev/shm."""
    store = min(RAY_SHARE * free, max(RAY_LEAST_CAP_BYTES, RAY_SHM_SHARE * shared))
    if shared < store:
        return Finding(
            "warning",
            f"/dev/shm: {format_gigabytes(shared)} free, less than the {format_gigabytes(store)} of Ray's object store, which will lie on disk: "
            f"make it larger, in a container by --shm-size={store / 1e9:.0f}gb",
        )
    return Finding(
        "ok", f"/dev/shm: {format_gigabytes(shared)} free, Ray's object store takes {format_gigabytes(store)}"
    )


def read_free_memory() -> float:
    """In bytes, within what a container may take."""
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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < OPEN_FILES:
        return Finding("warning", f"at most {most} open files, Ray wants {OPEN_FILES}: raise it (ulimit -Hn)")
    return Finding("ok", f"open files: {'no limit' if most == resource.RLIM_INFINITY else f'at most {most}'}")


def check_storage(storage: Path) -> Iterator[Finding]:
    """Room, rights, locks and the clock where studies are kept; room where Ray keeps its files."""
    place = next(parent for parent in (storage, *storage.parents) if parent.exists())
    where = str(storage) if place == storage else f"{storage}, to be made in {place}"
    if not place.is_dir():
        yield Finding("fails", f"storage {where}: {place} is no folder: give another --storage-path")
        return
    free = shutil.disk_usage(place).free
    level: Level = "fails" if free < ROOM_BYTES else "warning" if free < LITTLE_ROOM_BYTES else "ok"
    yield Finding(level, f"storage {where}: {format_gigabytes(free)} free" + (": make room" if level != "ok" else ""))
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as probe:
            yield from _probe_file(Path(probe) / "probe")
    except OSError as error:
        yield Finding("fails", f"storage {place} cannot be written ({error.strerror}): give another --storage-path")
    temporary = shutil.disk_usage(tempfile.gettempdir())
    if temporary.used / temporary.total > FULL:
        yield Finding("warning", f"{tempfile.gettempdir()} is over 95 % full, and Ray keeps its files there: make room")


def find_file_system(path: Path) -> str:
    """The type of the file system that a path lies on, as the system calls it; "unknown" if it does not say."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():
        return "unknown"
    fields = [line.split() for line in mounts.read_text().splitlines()]
    holding = [(point, kind) for _, point, kind, *_ in fields if path.resolve().is_relative_to(_unescape(point))]
    return max(holding, key=lambda pair: len(pair[0]), default=("", "unknown"))[1]


def format_gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def _probe_file(file: Path) -> Iterator[Finding]:
    """What a new file on the storage tells."""
    file.write_text("")
    skew = file.stat().st_mtime - time.time()
    kind = find_file_system(file)
    what = f"file system {kind}{', over the network' if kind.split('.')[0] in NETWORK else ''}"
    if _lock_holds(file):
        yield Finding("ok", f"{what}: can be written, and its locks hold")
    else:
        yield Finding(
            "fails",
            f"{what}: its locks do not hold, so that nothing keeps two runs out of one study: mount it with locks "
            "(flock), or give another --storage-path",
        )
    if abs(skew) > CLOCK_SECONDS:
        yield Finding("warning", f"clock: the storage's is {skew:+.0f} s from this machine's: set both by NTP")
    else:
        yield Finding("ok", f"clock: {time.strftime('%Y-%m-%d %H:%M:%S %z')}, the storage agrees")


def _lock_holds(path: Path) -> bool:
    """Whether a second process is refused; one process may be let in twice where locks are emulated."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        words = [sys.executable, "-c", SECOND_LOCK, str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() == "refused"


def _unescape(mount_point: str) -> str:
    return mount_point.replace("\\040", " ")

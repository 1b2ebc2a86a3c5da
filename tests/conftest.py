"""How the default run is spread over processes, where its files lie, and what each process has of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

MAX_WORKERS = 4
"""Each worker holds torch and Ray, up to 3 GB."""

RAM_DISK = Path("/dev/shm")
RAM_DISK_BYTES = 4 * 2**30
"""Free space that the default run and its Ray need there at most."""


def is_ram_disk_suitable() -> bool:
    """Return whether tests may keep files in memory, where an fsync, half of some tests' time, costs nothing."""
    try:
        disk = os.statvfs(RAM_DISK)
    except OSError:
        return False
    has_space = disk.f_bavail * disk.f_frsize >= RAM_DISK_BYTES
    return has_space and not disk.f_flag & os.ST_NOEXEC and os.access(RAM_DISK, os.W_OK)


if is_ram_disk_suitable():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(RAM_DISK))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch: workers would share the cores
signal.signal(signal.SIGINT, signal.default_int_handler)  # inherited by the processes that tests interrupt
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup lets them ignore


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a worker for each core for all tests, none for those named on the command line: those start sooner so."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    return min(os.cpu_count() or 1, MAX_WORKERS)

"""How the default run is spread over processes, and what each of them has of its own."""

from __future__ import annotations

import os
import signal

import pytest

MAX_WORKERS = 4
"""Each worker holds torch and Ray, up to 3 GB."""

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch: workers would share the cores
signal.signal(signal.SIGINT, signal.default_int_handler)  # inherited by the processes that tests interrupt
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup lets them ignore


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a worker for each core for all tests, none for those named on the command line: those start sooner so."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    return min(os.cpu_count() or 1, MAX_WORKERS)

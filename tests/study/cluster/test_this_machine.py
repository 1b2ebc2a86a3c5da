"""Limits of this machine: CPUs, threads, open files, connections."""

from __future__ import annotations

import errno
import math
import os
import resource
import socket
import subprocess
import sys
from contextlib import nullcontext

import joblib
import pytest

from study.cluster import this_machine
from study.cluster.this_machine import RAY_THREADS, WORKER_THREADS
from study.errors import InputError


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr(this_machine, "count_threads_left", lambda cpus: (math.inf, ""))


@pytest.mark.parametrize(
    ("system", "slurm", "threads", "expected"),
    [
        (8, None, math.inf, 8),
        (8, "4", math.inf, 4),
        (2, "64", math.inf, 2),
        (8, "", math.inf, 8),
        (8, "all", math.inf, 8),
        (8, "²", math.inf, 8),
        (8, "0", math.inf, 1),
        (8, None, RAY_THREADS + 3 * WORKER_THREADS, 3),
        (8, "2", RAY_THREADS + 3 * WORKER_THREADS, 2),
        (8, None, 10, 1),
    ],
)
def test_usable_cpus_are_the_fewest_that_any_limit_allows(
    system: int, slurm: str | None, threads: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: system)
    monkeypatch.setattr(this_machine, "count_threads_left", lambda cpus: (threads, ""))
    if slurm is not None:
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", slurm)
    assert this_machine.count_cpus() == expected


def test_limit_of_joblib_that_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "all")
    with pytest.raises(InputError, match="LOKY_MAX_CPU_COUNT=all is no number"):
        this_machine.count_cpus()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPU sets are Linux's")
def test_cpu_sets_are_followed() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); import study.cluster.this_machine as m; print(m.count_cpus())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "1"


@pytest.mark.parametrize("left", [0, 57, RAY_THREADS, RAY_THREADS + WORKER_THREADS - 1])
def test_too_few_processes_are_refused_with_the_arithmetic(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "count_threads_left", lambda cpus: (left, "raise the limit (ulimit -u)"))
    with pytest.raises(InputError, match=rf"{left} more processes .* about 180 and 30 for each CPU: raise the limit"):
        this_machine.check_process_limit()


def test_enough_processes_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "count_threads_left", lambda cpus: (RAY_THREADS + WORKER_THREADS, ""))
    this_machine.check_process_limit()


@pytest.mark.parametrize(("hard", "fits"), [(64, False), (128, True), (resource.RLIM_INFINITY, True)])
def test_too_few_open_files_are_refused(hard: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, hard))
    with nullcontext() if fits else pytest.raises(InputError, match=r"64 open files .* needs 128: .*ulimit -Hn"):
        this_machine.check_file_limit()


def test_machine_that_cannot_reach_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    this_machine.check_loopback()

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(InputError, match=r"127\.0\.0\.1 cannot be reached \(Network is unreachable\), .*: bring the"):
        this_machine.check_loopback()

"""Limits of this machine: CPUs, threads, folders for Ray's files, homes, shared memory."""

from __future__ import annotations

import errno
import math
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import joblib
import pytest
import ray

from study.cluster import resources, this_machine
from study.cluster.this_machine import RAY_THREADS, WORKER_THREADS
from study.errors import InputError

SESSION = "session_2026-11-28_09-15-45_123456_4194304"


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CPUS_ON_NODE", "RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_rays_folder_lies_where_temporary_files_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path("/tmp") / f"kd-{os.getpid()}"
    place.mkdir()
    try:
        monkeypatch.setenv(name, str(place))
        monkeypatch.setattr("tempfile.tempdir", None)
        folder = this_machine.make_ray_folder()
        assert folder == place / f"ray-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert this_machine.make_ray_folder() == folder
    finally:
        (place / f"ray-{os.getuid()}").rmdir()
        place.rmdir()


@pytest.mark.parametrize("place", ["x" * 60, "long/" * 20, "grün", "job 数", "two\nlines", "missing/by/far"])
def test_unusable_temporary_folder_is_replaced_by_a_short_one(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / place if place.isascii() else Path("/tmp") / place
    monkeypatch.setattr(this_machine, "_list_temporary_folders", lambda: [folder, Path("/tmp")])
    chosen = this_machine.make_ray_folder()
    assert chosen.parent == Path("/tmp")
    with socket.socket(socket.AF_UNIX) as server:  # Ray's longest
        (chosen / SESSION / "sockets").mkdir(parents=True)
        server.bind(str(chosen / SESSION / "sockets" / "plasma_store"))
    (chosen / SESSION / "sockets" / "plasma_store").unlink()
    (chosen / SESSION / "sockets").rmdir()
    (chosen / SESSION).rmdir()


def test_without_any_folder_each_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [Path("/tmp/" + "x" * 90), Path("/tmp/grün"), Path("/proc/nowhere")]
    monkeypatch.setattr(this_machine, "_list_temporary_folders", lambda: folders)
    with pytest.raises(InputError, match=r"too long for sockets; .* cannot read; .* cannot be written .*: set TMPDIR"):
        this_machine.make_ray_folder()


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_folder_of_somebody_else_is_left_alone(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(f"/tmp/kd{os.getpid()}{kind}")
    place.mkdir()
    taken = place / f"ray-{os.getuid()}"
    monkeypatch.setattr(this_machine, "_list_temporary_folders", lambda: [place])
    try:
        if kind == "file":
            taken.write_text("")
        else:
            taken.symlink_to(tmp_path if kind == "link" else "nowhere")
        chosen = this_machine.make_ray_folder()
        assert chosen.parent == place
        assert chosen != taken
        assert not list(tmp_path.iterdir())
        chosen.rmdir()
    finally:
        taken.unlink()
        place.rmdir()


@pytest.mark.parametrize("home", ["/proc/nohome", "/proc/1/root/nohome", "/dev/null", "/dev/null/deeper"])
def test_token_stays_in_the_environment_where_no_home_can_keep_it(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    this_machine.provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.write_bytes(b"\xff")])
def test_token_that_cannot_be_read_is_replaced_in_the_environment(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the folder that Docker makes where it mounts a file that is not there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / ".ray").mkdir()
    make(tmp_path / ".ray" / "auth_token")
    this_machine.provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize("given", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_users_own_choice_of_a_token_stands(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nohome")
    monkeypatch.setenv(given, "mine")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    this_machine.provide_token()
    assert os.environ.get("RAY_AUTH_TOKEN", "mine") == "mine"


def test_home_that_can_be_written_keeps_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    this_machine.provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert this_machine.find_home() == str(tmp_path)


def test_user_without_a_home_gets_rays_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert this_machine.find_home() == str(this_machine.make_ray_folder())
    assert not this_machine.has_writable_home()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_object_store_lies_on_disk_without_shared_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert this_machine.choose_object_store(tmp_path) == {}
    place = tmp_path / "shm"
    if kind == "file":
        place.write_text("")
    monkeypatch.setattr(this_machine, "SHARED_MEMORY", place)
    chosen = this_machine.choose_object_store(tmp_path)
    assert chosen["_plasma_directory"] == str(tmp_path)
    assert 75e6 < chosen["object_store_memory"] <= 1e9


@pytest.mark.parametrize(("limit", "store"), [(0, 0), (80_000_000, 0), (201_000_000, 200_000_000), (10**12, 10**9)])
def test_object_store_is_no_larger_than_files_may_be(
    limit: int, store: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, resource.RLIM_INFINITY))
    with nullcontext() if store else pytest.raises(InputError, match=r"needs one of 80 MB: raise .*ulimit -f"):
        assert this_machine.choose_object_store(tmp_path)["object_store_memory"] == store


def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=r"Ray does not start .* \(RuntimeError: no luck\): its logs are in"):
        resources.connect(None)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_ray_that_is_too_slow_is_started_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def start(**options: object) -> None:
        starts.append(options)
        if len(starts) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.4, 0, 0))
    with (
        nullcontext() if failures < 3 else pytest.raises(InputError, match=r"logs; 1000 processes compete for \d+ cor")
    ):
        resources.connect(None)
    assert len(starts) == min(failures + 1, 3)


def test_process_that_is_connected_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=r"call ray\.shutdown\(\) first"):
        resources.connect(None)

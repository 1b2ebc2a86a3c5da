"""Errors of Ray about workers: what their logs say of their end."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from study.cluster import connection
from study.execution import worker_failures
from study.execution.worker_failures import NO_TRACE, add_log, describe_death, to_worker_failure

pytestmark = pytest.mark.xdist_group("worker failures")  # whose Ray is one for all

MESSAGE = "The actor died unexpectedly.\n\tclass_name: TrialWorker\n\tpid: 77\n\tip: 10.0.0.1\nThe actor is dead."
CRASH = """:job_id:01000000
:actor_name:TrialWorker
epoch 3
corrupted size vs. prev_size
*** SIGABRT received at time=1795860468 on cpu 1 ***
PC: @     0x7f00c38a8eec  (unknown)  (unknown)
    @     0x7f00c385a050   66705552  (unknown)
[2026-11-28 10:07:48,846 E 20230 20230] logging.cc:474: *** SIGABRT received at time=1795860468 on cpu 1 ***
Fatal Python error: Aborted

Thread 0x1 (most recent call first):
  File "/x/conv.py", line 11 in forward
  File "/x/distill.py", line 20 in train

Extension modules: numpy (total: 1)
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (CRASH,
         'SIGABRT in File "/x/conv.py", line 11 in forward; its stderr ends: epoch 3 | corrupted size vs. prev_size'),
        (CRASH.replace("SIGABRT", "SIGSEGV").replace("epoch 3\ncorrupted size vs. prev_size\n", ""),
         'SIGSEGV in File "/x/conv.py", line 11 in forward'),
        ("*** SIGFPE received at time=1 on cpu 0 ***", "SIGFPE"),
        ("*** SIGBUS received at time=1 on cpu 0 ***\nnot enough space\n", "SIGBUS; its stderr ends: not enough space"),
        (":job_id:01000000\n:actor_name:A\nalmost there\n", f"{NO_TRACE}; its stderr ends: almost there"),
        ("", NO_TRACE),
    ],
)  # fmt: skip
def test_signal_place_and_last_lines_are_named(log: str, expected: str) -> None:
    assert describe_death(log.splitlines()) == expected


def test_log_of_the_process_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker-ab-01000000-77.err").write_bytes(CRASH.encode() + b"\xff")
    (tmp_path / "worker-cd-01000000-177.err").write_text("another process")
    monkeypatch.setattr(worker_failures, "find_logs_folder", lambda: tmp_path)
    failure = to_worker_failure(RayActorError("actor 1", MESSAGE))
    assert failure.reason.startswith('SIGABRT in File "/x/conv.py", line 11 in forward; its stderr ends: epoch 3 | ')
    assert "corrupted size vs. prev_size\n*** SIGABRT" in failure.text
    assert not failure.node_lost


@pytest.mark.parametrize("folder", ["other node", "not connected"])
def test_without_a_log_rays_message_stands(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_failures, "find_logs_folder", lambda: tmp_path if folder == "other node" else None)
    assert add_log(MESSAGE) == MESSAGE
    assert add_log("no process named") == "no process named"


def test_other_failures_have_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker-ab-01000000-77.err").write_text(CRASH)
    monkeypatch.setattr(worker_failures, "find_logs_folder", lambda: tmp_path)
    lost = to_worker_failure(RayActorError("actor 1", f"{MESSAGE} {worker_failures.NODE_DIED}"))
    assert (lost.node_lost, lost.reason) == (True, f"The actor is dead. {worker_failures.NODE_DIED}")
    assert to_worker_failure(ActorUnavailableError("gone", None)).node_lost
    assert to_worker_failure(RayActorError("actor 1", MESSAGE, actor_init_failed=True)).reason == "The actor is dead."


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connection.connect(None)
    yield
    connection.disconnect()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("segfault", "SIGSEGV in File"),
        ("abort", "SIGABRT in File"),
        ("SIGKILL", NO_TRACE),
        ("SIGTERM", "SIGTERM|no trace|exit"),
        ("SIGBUS", "SIGBUS"),
        ("SIGFPE", "SIGFPE"),
        ("exit", NO_TRACE),
    ],
)
def test_real_deaths_are_described(end: str, expected: str, local_ray: None) -> None:
    class Doomed:
        def die(self) -> None:
            os.write(2, b"almost there\n")
            if end == "segfault":
                ctypes.string_at(0)
            elif end == "abort":
                os.abort()
            elif end == "exit":
                os._exit(3)
            os.kill(os.getpid(), getattr(signal, end))

    actor = ray.remote(Doomed).remote()
    with pytest.raises(RayActorError) as raised:
        ray.get(actor.die.remote())
    reason = to_worker_failure(raised.value).reason
    assert any(part in reason for part in expected.split("|"))
    assert "almost there" in reason

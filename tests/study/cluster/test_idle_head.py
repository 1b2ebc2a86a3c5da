"""When an idle head shuts itself down, with the answers of the machine and of Ray replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.util.state
from click.testing import CliRunner

from study.cluster import idle_head


class Machine:
    """A head that started `up` seconds ago, and the commands that were run on it."""

    def __init__(self) -> None:
        self.up, self.ran = 10_000.0, list[list[str]]()
        self.who, self.processes = b"", {"gcs_server"}

    def run(self, words: list[str], **_: Any) -> Any:
        self.ran.append(words)
        found = 0 if words[0] != "pgrep" or words[-1] in self.processes else 1
        return SimpleNamespace(returncode=found, stdout=self.who)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setattr(idle_head, "LAST_BUSY", tmp_path / "busy")
    monkeypatch.setattr(idle_head, "read_boot_time", lambda: time.time() - made.up)
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


def check(monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(idle_head, "is_busy", lambda: busy)
    assert CliRunner().invoke(idle_head.main, ["--minutes", "60"]).exit_code == 0


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


WORKERS = ["timeout", "600", str(Path(sys.executable).with_name("ray")), "down", "--yes", "--workers-only"]
END = [[*WORKERS, str(Path("~/ray_bootstrap_config.yaml").expanduser())], ["sudo", "shutdown", "-h", "now"]]
"""Workers first: nobody else ends them if Ray has ended on the head."""


def test_head_ends_after_an_idle_hour(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, busy=True)
    check(monkeypatch, busy=False)
    age(idle_head.LAST_BUSY, 3500)
    check(monkeypatch, busy=False)
    assert machine.ran == []
    age(idle_head.LAST_BUSY, 3700)
    check(monkeypatch, busy=True)
    assert machine.ran == []
    age(idle_head.LAST_BUSY, 3700)
    check(monkeypatch, busy=False)
    assert machine.ran == END


def test_head_that_never_was_busy_ends_an_hour_after_its_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.up = 3500.0
    check(monkeypatch, busy=False)
    assert machine.ran == []
    machine.up = 3700.0
    check(monkeypatch, busy=False)
    assert machine.ran == END


def test_head_that_ray_up_started_again_has_its_hour(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    idle_head.LAST_BUSY.touch()
    age(idle_head.LAST_BUSY, 200_000)
    machine.up = 60.0
    check(monkeypatch, busy=False)
    assert machine.ran == []


NODE = SimpleNamespace(is_head_node=True)
ENDED = SimpleNamespace(status="SUCCEEDED")


@pytest.mark.parametrize(
    ("who", "processes", "jobs", "nodes", "busy"),
    [
        (b"", {"gcs_server"}, [ENDED], [NODE], False),
        (b"", {"gcs_server"}, [ENDED, SimpleNamespace(status="RUNNING")], [NODE], True),
        (b"", {"gcs_server"}, [SimpleNamespace(status="PENDING")], [NODE], True),
        (b"", {"gcs_server"}, [], [NODE, SimpleNamespace(is_head_node=False)], True),
        (b"ubuntu used 2026-11-28 09:00 (10.0.0.7)", {"gcs_server"}, [], [NODE], True),
        (b"ubuntu gone 2026-11-28 09:00", {"gcs_server"}, [], [NODE], True),  # in doubt
        (b"ubuntu unused 2026-11-28 09:00\nubuntu unused 2026-11-28 09:01", {"gcs_server"}, [], [NODE], False),
        (b"", {"gcs_server", "rsync"}, [], [NODE], True),
        (b"", set(), None, None, False),  # no Ray, nothing that could run
        (b"", {"gcs_server"}, None, None, True),  # Ray runs and does not answer
    ],
)
def test_busy_is_what_uses_the_head(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    who: bytes,
    processes: set[str],
    jobs: list[Any] | None,
    nodes: list[Any] | None,
    busy: bool,
    tmp_path: Path,
) -> None:
    def answer(value: list[Any] | None) -> list[Any]:
        if value is None:
            raise ConnectionError
        return value

    machine.who, machine.processes = who.replace(b"ubuntu ", f"ubuntu {tmp_path}/".encode()), processes
    for name in ("used", "unused"):
        (tmp_path / name).touch()
    age(tmp_path / "unused", 700)
    monkeypatch.setattr(ray.util.state, "list_jobs", lambda *_, **__: answer(jobs))
    monkeypatch.setattr(ray.util.state, "list_nodes", lambda *_, **__: answer(nodes))
    assert idle_head.is_busy() is busy


def test_time_of_the_start_is_this_machines() -> None:
    now = time.time()
    assert 0 < now - idle_head.read_boot_time() < now

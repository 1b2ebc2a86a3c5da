"""Studies sent as jobs to a real head on this machine, and queries of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.study.cli.studies import SPACE

pytestmark = pytest.mark.xdist_group("jobs")  # whose head is one for all

ONE = ("--max-concurrent", "1")
"""A worker fewer to start."""

OTHER_ON_NODES = """
import os
from study.cluster import software_check

here = os.getpid()
software_check._make_reader = lambda: lambda: (
    {"torch": "2.5", "ray": "2.60.0"} if os.getpid() == here else {"torch": "2.4", "ray": ""}
)
"""


class Head:
    """A head on this machine, with a dashboard and a token, and a laptop to give commands from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key = "kdstudy" + os.urandom(16).hex()
        self.gcs, self.web, self.agent = _free_port(), _free_port(), _free_port()
        self.dashboard, self.address = f"http://127.0.0.1:{self.web}", f"127.0.0.1:{self.gcs}"
        for name in ("home", "laptop"):
            (folder / name).mkdir()
        paths = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        self.environment = {"PATH": paths, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.key,
                            "OMP_NUM_THREADS": "1"}  # fmt: skip
        ports = {"port": self.gcs, "dashboard-port": self.web, "dashboard-agent-listen-port": self.agent}
        given = {"temp-dir": folder / "ray", "num-cpus": 2, "object-store-memory": 100_000_000, **ports}
        options = [f"--{name}={value}" for name, value in given.items()]
        # else Ray starts a worker for each CPU with the first driver of a job, which no study can use
        fewer = {"RAY_prestart_worker_first_driver": "0"}
        self.process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats", *options],
            env={**self.environment, **fewer, "HOME": str(folder / "home")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until jobs are taken."""
        deadline = time.monotonic() + 90
        while not (self._answers(self.web, "/api/version") and self._answers(self.agent, "/api/local_raylet_healthz")):
            assert self.process.poll() is None, "the head did not start"
            assert time.monotonic() < deadline, "the head takes no jobs"
            time.sleep(0.2)

    def _answers(self, port: int, path: str) -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {self.key}"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=10):
            return True
        return False

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        known = {**self.environment, "HOME": str(self.folder / "laptop"), **environment}
        folder = self.folder / "laptop"
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **environment)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    def study(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "study", *words, "--address", self.dashboard)

    def end(self) -> None:
        self.process.terminate()  # with --block it ends all that it has started
        self.process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="kdh-"))  # Ray's sockets need a short path
    made = Head(folder)
    try:
        made.wait()
        (folder / "laptop" / "pace.py").write_text("SECONDS = 0.02")
        (folder / "laptop" / "toy.py").write_text("from pace import SECONDS\n" + SPACE.replace("=0.2", "=SECONDS"))
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


USED = (
    "import sys; from study.cluster import idle_head as here; here.DASHBOARD = sys.argv[1]; print(here.uses_cluster())"
)


def is_used(head: Head) -> bool:
    said = head.run("-c", USED, head.dashboard)
    assert said.stdout in ("True\n", "False\n"), said.stderr
    return said.stdout == "True\n"


@pytest.fixture
def ray_on_laptop(head: Head) -> str:
    """A PATH with a `ray` that copies the head's storage, and has no cluster to end."""
    laptop = head.folder / "laptop"
    (laptop / "bin").mkdir()
    ray = laptop / "bin" / "ray"
    ray.write_text(
        f'#!/bin/sh\n[ $1 = exec ] && exec sh -c "$3"\necho $1 >> {laptop}/calls\n'
        f'[ $1 = down ] || cp -r {head.folder}/home/runs/. "$4"\n'
    )
    ray.chmod(0o755)
    (laptop / "cluster.yaml").touch()
    return f"{laptop / 'bin'}:{head.environment['PATH']}"


@pytest.mark.slow
def test_study_runs_as_a_job_on_a_cluster_that_is_then_copied_and_ended(head: Head, ray_on_laptop: str) -> None:
    laptop = head.folder / "laptop"
    assert not is_used(head)
    words = ("-m", "study", "run", "toy.py", *ONE, "--address", head.dashboard, "--then", "down")
    running = head.start(*words, PATH=ray_on_laptop)
    assert running.stdout is not None
    first = running.stdout.readline()  # of the job, which then runs
    assert any(is_used(head) for _ in iter(lambda: running.poll() is None, False))
    stdout, stderr = running.communicate(timeout=120)
    assert running.returncode == 0, first + stdout + stderr
    assert f"report: {head.folder / 'home' / 'runs' / 'toy' / 'report.html'}" in stdout
    assert "Running entrypoint" not in first + stdout
    assert not list(laptop.glob("runs"))
    assert (laptop / "calls").read_text().split() == ["rsync-down", "down"]
    (copy,) = (laptop / "fetched").iterdir()
    assert f"results: fetched/{copy.name}/toy" in stdout + stderr
    assert (copy / "toy" / "report.html").is_file()
    assert not is_used(head)

    shown = json.loads(head.study("show", "toy", "--json").stdout)
    assert (shown["state"], [cell["phase"] for cell in shown["cells"]]) == ("finished", ["confirmed", "confirmed"])


@pytest.mark.slow
def test_command_that_is_refused_on_the_head_is_refused_here(head: Head) -> None:
    refused = head.study("run", "toy.py", "--dry-run", "--data-dir", "/only/there", "--gpus-per-worker", "1")
    assert (refused.returncode, refused.stdout.count("\n")) == (2, 1), refused.stdout
    assert "a trial asks for 1 CPU and 1 GPU on one node, there are 2 CPU and 0 GPU: no trial fits" in refused.stdout


@pytest.mark.slow
def test_study_left_by_ctrl_c_is_refused_twice_and_stopped_from_elsewhere(head: Head) -> None:
    (head.folder / "laptop" / "pace.py").write_text("SECONDS = 1.0")
    words = ("run", "toy.py", "--name", "long", "--trials", "99", *ONE, "--storage-path", str(head.folder / "shared"))
    process = head.start("-m", "study", *words, "--address", head.dashboard)
    assert process.stdout is not None
    assert any("searching" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "no longer followed; the study continues" in stderr

    twice = head.study(*words)
    assert twice.returncode == 2
    assert "is being run by another process" in twice.stdout
    stopped = head.study("stop", "long", "--wait", "60")
    assert stopped.returncode == 0, stopped.stderr
    assert re.search(r"long stopped after [\d.]+ s", stopped.stdout)
    (listed,) = json.loads(head.study("list", "--json").stdout)
    assert (listed["name"], listed["state"]) == ("long", "unfinished")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses the token of RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": ""}, "there is none in ~/.ray/auth_token"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is disabled: export RAY_AUTH_MODE=token"),
    ],
)
def test_wrong_token_is_refused_at_every_address(head: Head, exported: dict[str, str], message: str) -> None:
    for address in (head.dashboard, head.address):
        # in a process of its own: Ray caches the first token it reads
        refused = head.run(
            "-c", f"from study.cluster.addresses import check_address; check_address({address!r})", **exported
        )
        assert re.search(f"InputError: .*{message}", refused.stderr.strip().splitlines()[-1]), refused.stderr


@pytest.mark.slow
def test_wrong_token_is_one_line_before_a_study_starts(head: Head) -> None:
    began = time.monotonic()
    refused = head.run("-m", "study.run", "toy.py", "--address", head.address, RAY_AUTH_TOKEN="0" * 64)
    assert time.monotonic() - began < 15
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "connection.ray.__version__ = '2.54.0'",
            r"cannot join the Ray cluster at .*: Version mismatch: .* Ray: 2\.\d+\.\d+ .* Ray: 2\.54\.0",
        ),
        (
            OTHER_ON_NODES,
            r"\S+ \([\d.]+\) has torch 2\.4 where the driver has 2\.5, lacks ray: install the same on every node",
        ),
    ],
)
def test_other_versions_are_named_before_a_study_starts(head: Head, before: str, message: str) -> None:
    code = f"from study.cluster import connection\n{before}\nconnection.connect({head.address!r})"
    refused = head.run("-c", code)
    last = refused.stderr.strip().splitlines()[-1]
    assert re.search(rf"InputError: {message}", last), refused.stderr


@pytest.mark.slow
def test_dashboard_refuses_jobs_without_the_token(head: Head) -> None:
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", b'{"entrypoint": "true"}')
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)

"""docs/cluster.md's section on machines of one's own, followed for real: `ray up` to `--then down` on two hosts.

The hosts are namespaces on this machine (hosts.py); the commands are those of the document, with another space file
and another shared folder.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.study.cluster.hosts import SSH_SESSIONS, Hosts, hosts, missing

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("hosts")]  # which exist once

ROOT = Path(__file__).parents[3]
SECTION = (
    (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").split("## Machines of your own")[1].split("\n## ")[0]
)
DASHBOARD = "http://127.0.0.1:8265"

SPACE = """
import socket, time
from dataclasses import dataclass
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent

@dataclass(frozen=True)
class Together(Simulated):
    def train(self, job):
        seen = job.storage.parent / "seen"
        seen.mkdir(exist_ok=True)
        (seen / socket.gethostname()).touch()
        while len(list(seen.iterdir())) < 2:
            time.sleep(0.1)
        yield from super().train(job)

study = Study(
    name="toy", question="Does the gain show?", task=Together(), students=(SimulatedStudent(),),
    arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True), Arm("better", SimulatedLoss(gain=0.05))),
    budget=Budget(trials=1, epochs=3, seeds=2),
)
"""
"""Trials begin when two hosts train one."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder outside /dev/shm, where pytest keeps its own: each host has another /dev/shm."""
    with tempfile.TemporaryDirectory(prefix="kdh-") as made:
        yield Path(made)


@pytest.fixture
def two(folder: Path) -> Iterator[Hosts]:
    if lacking := missing():
        pytest.skip(lacking)
    with hosts(folder, "head", "worker") as made:
        yield made


@pytest.fixture
def checkout(two: Hosts) -> Path:
    """A checkout on the laptop, with docs/on-premises.yaml filled in."""
    folder = two.laptop / "kdstudy"
    for package in ("study", "trainables", "reports", "spaces", "docs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", folder)
    (folder / "toy.py").write_text(SPACE)
    config = yaml.safe_load((ROOT / "docs" / "on-premises.yaml").read_text(encoding="utf-8"))
    head, *workers = two.addresses.values()
    config["provider"] |= {"head_ip": head, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(two.key)}
    # the hosts share this machine's environment, where ~/kdstudy-env leads, and its cores: nothing is to be installed
    config["setup_commands"] = [command for command in config["setup_commands"] if "pip install" not in command]
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[name] = [command.replace("ray start", "ray start --num-cpus=1") for command in config[name]]
    (folder / "docs" / "on-premises.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


class Followed:
    """The document's commands, one after the other, on the laptop."""

    def __init__(self, two: Hosts, checkout: Path):
        self._hosts, self._checkout = two, checkout
        text = "".join(re.findall(r"```\n(.*?)```", SECTION, flags=re.S)).replace("\\\n", " ")
        text = text.replace("/mnt/shared", str(two.folder / "shared")).replace("spaces/lp_cifar.py", "toy.py")
        self.lines = [line.split("  #")[0].strip() for line in text.replace("lp_cifar", "toy").splitlines()]
        (exported,) = [line.removeprefix("export ") for line in self.lines if line.startswith("export ")]
        self.environment = dict(word.split("=") for word in shlex.split(exported))

    def line(self, start: str) -> str:
        (found,) = [line for line in self.lines if line.startswith(start)]
        return found

    def asked(self, command: str, **environment: str) -> subprocess.Popen[str]:
        return self._hosts.start(command, self._checkout, **(self.environment | environment))

    def start(self, start: str) -> None:
        self.asked(self.line(start).removesuffix("&"))

    def tried(self, command: str, timeout: float = 120) -> tuple[int, str]:
        return self._hosts.run(command, self._checkout, timeout, **self.environment)

    def run(self, start: str) -> str:
        code, output = self.tried(self.line(start))
        assert code == 0, output
        return output


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds:g} s"
        time.sleep(0.5)


def test_a_study_runs_on_both_hosts_and_strangers_are_refused(two: Hosts, checkout: Path) -> None:
    (two.folder / "shared").mkdir()
    follow = Followed(two, checkout)
    follow.run("ray get-auth-token")
    assert (two.laptop / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    follow.run("ray up")
    assert (two.folder / "head" / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    follow.start("ray dashboard")
    wait_for(lambda: follow.tried(": > /dev/tcp/127.0.0.1/8265")[0] == 0, 60, "way to the dashboard")
    refused_without_the_token(two, follow)
    hosts_asked = ask_dashboard("/nodes?view=hostNameList", (two.laptop / ".ray" / "auth_token").read_text().strip())
    wait_for(lambda: '"worker"' in follow.tried(hosts_asked)[1], 60, "second host")
    wait_for(lambda: "/2.0 CPU" in follow.run("ray exec"), 60, "second host's CPU")

    follow.run("python -m study.run")
    assert "toy" in follow.run("python -m study show")
    follow.run("ray rsync-down")
    trials = pd.read_parquet(checkout / "runs" / "toy" / "trials").drop_duplicates("trial_id", keep="last")
    assert set(trials.state) == {"COMPLETE"}
    assert {worker.split(":")[0] for worker in trials.worker} == {"head", "worker"}
    assert (checkout / "runs" / "toy" / "report.html").is_file()

    ended_with_the_study(checkout, follow, trials)
    code, _ = follow.tried(f": > /dev/tcp/{two.addresses['head']}/6379")
    assert code != 0, "the head still answers"


def ended_with_the_study(checkout: Path, follow: Followed, trials: pd.DataFrame) -> None:
    """The study is complete: the same command with --then down only copies it and ends its cluster, and no other."""
    command = follow.line("python -m study.run") + " --then down --cluster-file "
    file = checkout / "docs" / "on-premises.yaml"
    (checkout / "other.yaml").write_text(file.read_text().replace("cluster_name: kdstudy", "cluster_name: other"))
    code, output = follow.tried(command + "other.yaml", 300)
    assert code == 2, output
    assert "the head of other.yaml does not run the Ray at" in output

    code, output = follow.tried(command + "docs/on-premises.yaml", 300)
    assert code == 0, output
    assert follow.line("ray down") in output
    (copy,) = (checkout / "fetched").iterdir()
    assert f"results: fetched/{copy.name}/toy" in output
    fetched = pd.read_parquet(copy / "toy" / "trials")
    assert set(fetched.trial_id) == set(trials.trial_id)
    assert (copy / "toy" / "report.html").is_file()


def refused_without_the_token(two: Hosts, follow: Followed) -> None:
    """Neither a job nor a driver of Ray's gets in; what the commands say then is in test_jobs_on_head.py."""
    joining = shlex.quote(f"import ray; ray.init('{two.addresses['head']}:6379'); print('joined')")
    quick = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # Ray tries a wrong token for 20 seconds
    asked = [
        follow.asked(f"python -c {joining}", **environment, **quick)
        for environment in ({"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"})
    ]
    for token in ("0" * 64, ""):
        code, output = follow.tried(ask_dashboard("/api/jobs/", token, '{"entrypoint": "echo joined"}'))
        assert code != 0, output
        assert re.search("HTTP Error 40[13]", output), output
    for process in asked:
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0, output
        assert "joined" not in output
        assert "token" in output.lower(), output


def ask_dashboard(path: str, token: str, data: str = "") -> str:
    """Return a command that prints the dashboard's answer. It takes a tenth of the time of Ray's own commands."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = f"Request({DASHBOARD + path!r}, {data.encode() or None!r}, {headers})"
    return "python -c " + shlex.quote(f"from urllib.request import *; print(urlopen({request}).read().decode())")


def test_hosts_end_with_whoever_made_them(folder: Path) -> None:
    if lacking := missing():
        pytest.skip(lacking)
    code = """
import pathlib, sys, time
from tests.study.cluster.hosts import hosts
with hosts(pathlib.Path(sys.argv[1]), "head") as made:
    print(made.first_process, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        first = Path(f"/proc/{int(maker.stdout.readline())}")
        assert first.is_dir()
        maker.send_signal(signal.SIGKILL)
    wait_for(lambda: not first.is_dir(), 30, "end of the hosts")
    with suppress(OSError):
        SSH_SESSIONS.rmdir()

"""Studies sent to a cluster as jobs: with a client that only records its calls, and on a real head."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from study.cli import run
from study.cli.main import main
from study.cluster import addresses, jobs
from tests.study.cli.test_main import SPACE

pytestmark = pytest.mark.xdist_group("jobs")  # whose head is one for all

ADDRESS = "http://127.0.0.1:8265"


class Client:
    """In place of Ray's: a job prints `prints` and ends with `code`, or breaks off with `breaks`."""

    def __init__(self) -> None:
        self.prints, self.code = "all is well\n", 0
        self.breaks: BaseException | None = None
        self.status, self.message = "SUCCEEDED", ""
        self.jobs: list[dict[str, Any]] = []
        self.carried: dict[str, str] = {}
        self.deleted: list[str] = []

    def submit_job(self, **options: Any) -> str:
        folder = options.get("runtime_env", {}).get("working_dir")
        found = [path for path in Path(folder).rglob("*") if path.is_file()] if folder else []
        self.carried |= {path.relative_to(folder).as_posix(): path.read_text() for path in found}
        self.jobs.append(options)
        return str(options.get("submission_id", "job"))

    def log(self) -> str:
        return f"2026-11-21 INFO -- Runtime env is setting up.\nRunning entrypoint for job x: …\n{self.prints}"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for line in self.log().splitlines(keepends=True):
            yield line
        if self.breaks is not None:
            raise self.breaks

    def get_job_logs(self, job: str) -> str:
        return self.log()

    def get_job_info(self, job: str) -> Any:
        status = SimpleNamespace(is_terminal=lambda: True, __str__=lambda _: self.status)
        return SimpleNamespace(status=status, driver_exit_code=self.code, message=self.message)

    def list_jobs(self) -> list[Any]:
        started = enumerate(self.jobs)
        return [SimpleNamespace(metadata=job.get("metadata"), start_time=number) for number, job in started]

    def delete_job(self, job: str) -> None:
        self.deleted.append(job)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(jobs, "_connect", lambda address: made)
    monkeypatch.setattr(addresses, "check_address", lambda address: None)
    return made


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "toy.py"


def called(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def sent(client: Client) -> list[str]:
    """The words of the last job's command."""
    return shlex.split(client.jobs[-1]["entrypoint"])


# -- run ---------------------------------------------------------------------------------------------------------------


def test_study_is_submitted_with_its_options_and_prints_its_jobs_output(client: Client, space: Path) -> None:
    options = ["--name", "far", "--trials", "4", "--wall-hours", "0.5", "--fresh", "--log", "mlflow", "--log", "wandb",
               "--gpus-per-worker", "auto", "--storage-path", "/shared/the runs"]  # fmt: skip
    result = called("run", space, *options, "--address", ADDRESS)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "all is well\n"
    words = sent(client)
    assert words[:6] == ["cd", "&&", "exec", "python", "-m", "study.run"]
    assert words[6] == "$OLDPWD/toy.py"
    assert words[-2:] == ["--address", "auto"]
    again = run.main.make_context("run", [str(space), *words[7:]]).params
    given = run.main.make_context("run", [str(space), *options, "--address", "auto"]).params
    assert again == given
    assert client.carried == {"toy.py": SPACE}
    assert f"toy.py sent to {ADDRESS}" in result.stderr
    assert not (space.parent / "runs").exists()


def test_modules_that_the_space_file_imports_go_with_it(
    client: Client, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(space.parent)
    (space.parent / "beside_it.py").write_text("SECONDS = 0.5")
    (space.parent / "unused_by_it.py").write_text("")
    (space.parent / "beside_as_folder").mkdir()
    (space.parent / "beside_as_folder" / "__init__.py").write_text("from beside_as_folder import deep")
    (space.parent / "beside_as_folder" / "deep.py").write_text("")
    space.write_text("import beside_it, beside_as_folder\n" + SPACE)
    result = called("run", space, "--address", ADDRESS)
    assert result.exit_code == 0, result.stderr
    assert set(client.carried) == {
        "toy.py",
        "beside_it.py",
        "beside_as_folder/__init__.py",
        "beside_as_folder/deep.py",
    }
    assert "toy.py, beside_as_folder, beside_it.py sent" in result.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_exit_code_is_that_of_the_job(client: Client, space: Path, code: int) -> None:
    client.code = code
    result = called("run", space, "--address", ADDRESS)
    assert result.exit_code == code
    assert ("the same command continues" in result.stderr) == (code in (1, 3))


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (KeyboardInterrupt(), "no longer followed; the study continues"),
        (ConnectionError("gone"), "the connection is lost; the study continues as long as its head runs"),
        (RuntimeError("WebSocket closed"), "the connection is lost; the study continues as long as its head runs"),
    ],
)
def test_ctrl_c_and_a_lost_connection_leave_the_study_running_and_print_the_next_commands(
    client: Client, space: Path, breaks: BaseException, why: str
) -> None:
    client.breaks = breaks
    result = called("run", space, "--storage-path", "/shared/runs", "--address", ADDRESS)
    assert result.exit_code == 130
    assert why in result.stderr
    for command in ("show", "stop"):
        assert f"python -m study {command} toy --address {ADDRESS} --storage-path /shared/runs" in result.stderr


def test_job_that_never_ran_is_reported(client: Client, space: Path) -> None:
    client.code, client.message, client.status = None, "runtime_env setup\nfailed", "FAILED"  # type: ignore[assignment]
    result = called("run", space, "--address", ADDRESS)
    assert result.exit_code == 1
    assert "runtime_env setup failed" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "paper"], "has no profiles"),
        (["--trials", "0"], "trials is 0; allowed is a whole number, at least 1"),
        (["--name", "a/b"], "study name 'a/b'"),
    ],
)
def test_bad_input_is_refused_before_a_job_is_submitted(
    client: Client, space: Path, options: list[str], message: str
) -> None:
    result = called("run", space, *options, "--address", ADDRESS)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not client.jobs


@pytest.mark.parametrize("lacking", ["import only_on_the_cluster", "open('/only/on/the/cluster')"])
def test_missing_data_or_packages_are_left_to_the_cluster_to_refuse(client: Client, space: Path, lacking: str) -> None:
    space.write_text(f"{lacking}\n{SPACE}")
    result = called("run", space, "--address", ADDRESS)
    assert result.exit_code == 0, result.stderr
    assert "not checked here, but on the cluster: " in result.stderr
    assert len(client.jobs) == 1


@pytest.mark.parametrize("profile", ["cifar10", "paper"])
def test_data_folder_of_the_cluster_is_not_looked_for_here(client: Client, profile: str) -> None:
    space = Path(__file__).parents[3] / "spaces" / "lp_cifar.py"
    words = ("--profile", profile, "--data-dir", "/only/on/the/cluster", "--address", ADDRESS)
    result = called("run", space, *words)
    assert result.exit_code == 0, result.stderr
    assert "not checked here" not in result.stderr
    assert sent(client)[7:11] == ["--profile", profile, "--data-dir", "/only/on/the/cluster"]


def test_missing_space_file_is_refused_whatever_the_cluster_has(client: Client, tmp_path: Path) -> None:
    result = called("run", tmp_path / "none.py", "--data-dir", "/only/there", "--address", ADDRESS)
    assert result.exit_code == 2
    assert (result.stderr.count("\n"), client.jobs) == (1, [])
    assert "no space file" in result.stderr


@pytest.mark.parametrize(
    ("storage", "command"),
    [
        ("runs", "mkdir -p runs/toy/ && ray rsync-down cluster.yaml '~/runs/toy/' runs/toy/"),
        ("/shared/runs", "mkdir -p runs/toy/ && ray rsync-down cluster.yaml /shared/runs/toy/ runs/toy/"),
        ("s3://bucket/runs/", "aws s3 sync s3://bucket/runs/toy/ runs/toy/"),
    ],
)
def test_end_of_a_study_prints_how_to_fetch_its_report(client: Client, space: Path, storage: str, command: str) -> None:
    result = called("run", space, "--storage-path", storage, "--address", ADDRESS)
    assert f"onto this disk: {command}\n" in result.stderr


# -- list, show, stop --------------------------------------------------------------------------------------------------


def test_show_runs_on_the_head_with_the_storage_of_the_study(client: Client, space: Path) -> None:
    for name, storage in (("toy", "/shared/a"), ("other", "/shared/b")):
        called("run", space, "--name", name, "--storage-path", storage, "--address", ADDRESS)
    called("run", space, "--dry-run", "--storage-path", "/tried", "--address", ADDRESS)
    client.prints = '{"name": "toy"}\n'
    result = called("show", "toy", "--json", "--address", ADDRESS)
    assert (result.exit_code, result.stdout) == (0, '{"name": "toy"}\n')
    start = ["cd", "&&", "exec", "python", "-m", "study"]
    assert sent(client) == [*start, "show", "toy", "--json", "--storage-path", "/shared/a"]
    called("run", space, "--fresh", "--storage-path", "/shared/a", "--address", ADDRESS)  # its name is known there only
    called("run", space, "--name", "other", "--storage-path", "/shared/b", "--address", ADDRESS)
    called("list", "--address", ADDRESS)
    assert sent(client) == [*start, "list", "--storage-path", "/shared/b"]
    called("stop", "toy", "--wait", "5", "--storage-path", "/shared/c", "--address", ADDRESS)
    assert sent(client) == [*start, "stop", "toy", "--storage-path", "/shared/c", "--wait", "5.0"]
    assert len(client.deleted) == 3


def test_failed_command_keeps_its_exit_code_and_prints_to_stderr(client: Client) -> None:
    client.prints, client.code = "error: no study 'nix' below runs\n", 2
    result = called("show", "nix", "--address", ADDRESS)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: no study 'nix' below runs\n")


def test_next_steps_are_printed_as_they_are_typed_here(client: Client) -> None:
    client.prints = "stop it: python -m study stop /shared/a/toy\n"
    result = called("show", "toy", "--address", ADDRESS)
    assert result.stdout == f"stop it: python -m study stop /shared/a/toy --address {ADDRESS}\n"
    client.prints = '{"next": "stop it: python -m study stop toy"}\n'
    assert called("show", "toy", "--json", "--address", ADDRESS).stdout == client.prints
    client.prints = "toy stopped after 1.0 s; continue with: python -m study resume toy\n"
    result = called("stop", "toy", "--address", ADDRESS)
    assert result.stdout == "toy stopped after 1.0 s; continue with: the command that it was submitted with\n"


def test_queries_refuse_all_addresses_but_a_dashboards() -> None:
    for command in (["list"], ["show", "toy"], ["stop", "toy"]):
        result = called(*command, "--address", "auto")
        assert result.exit_code == 2
        assert "allowed is http://HOST:PORT of a dashboard; on the head, leave it out" in result.stderr


# -- a real head -------------------------------------------------------------------------------------------------------


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
        self.gcs, self.web = _free_port(), _free_port()
        self.dashboard, self.address = f"http://127.0.0.1:{self.web}", f"127.0.0.1:{self.gcs}"
        for name in ("home", "laptop"):
            (folder / name).mkdir()
        paths = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        self.environment = {"PATH": paths, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.key,
                            "OMP_NUM_THREADS": "1"}  # fmt: skip
        ports = {"port": self.gcs, "dashboard-port": self.web, "dashboard-agent-listen-port": _free_port()}
        given = {"temp-dir": folder / "ray", "num-cpus": 2, "object-store-memory": 100_000_000, **ports}
        options = [f"--{name}={value}" for name, value in given.items()]
        self.process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--include-dashboard=true", "--disable-usage-stats", *options],
            env={**self.environment, "HOME": str(folder / "home")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until jobs are taken."""
        deadline = time.monotonic() + 90
        while self.run("-m", "study", "list", "--address", self.dashboard, "--storage-path", "/").returncode:
            assert self.process.poll() is None, "the head did not start"
            assert time.monotonic() < deadline, "the head takes no jobs"

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


@pytest.mark.slow
def test_study_runs_as_a_job_and_is_shown_and_listed_from_elsewhere(head: Head) -> None:
    done = head.study("run", "toy.py")
    assert done.returncode == 0, done.stdout + done.stderr
    report = head.folder / "home" / "runs" / "toy" / "report.html"
    assert f"report: {report}" in done.stdout
    assert "Running entrypoint" not in done.stdout
    assert report.is_file()
    assert not list((head.folder / "laptop").glob("runs"))
    shown = json.loads(head.study("show", "toy", "--json").stdout)
    assert (shown["state"], [cell["phase"] for cell in shown["cells"]]) == ("finished", ["confirmed", "confirmed"])
    refused = head.study("run", "toy.py", "--dry-run", "--data-dir", "/only/there", "--gpus-per-worker", "1")
    assert (refused.returncode, refused.stdout.count("\n")) == (2, 1), refused.stdout
    assert "a trial asks for 1 CPU and 1 GPU on one node, there are 2 CPU and 0 GPU: no trial fits" in refused.stdout


USED = (
    "import sys; from study.cluster import idle_head as here; here.DASHBOARD = sys.argv[1]; print(here.uses_cluster())"
)


@pytest.mark.slow
def test_cluster_is_used_while_a_study_runs_and_then_copied_and_ended(head: Head) -> None:
    laptop = head.folder / "laptop"
    (laptop / "bin").mkdir()
    ray = laptop / "bin" / "ray"  # copies the head's storage; there is no cluster to end
    ray.write_text(
        f'#!/bin/sh\n[ $1 = exec ] && exec sh -c "$3"\necho $1 >> {laptop}/calls\n'
        f'[ $1 = down ] || cp -r {head.folder}/home/runs/. "$4"\n'
    )
    ray.chmod(0o755)
    (laptop / "cluster.yaml").touch()
    assert head.run("-c", USED, head.dashboard).stdout == "False\n"
    words = ("-m", "study", "run", "toy.py", "--name", "last", "--address", head.dashboard, "--then", "down")
    running = head.start(*words, PATH=f"{laptop / 'bin'}:{head.environment['PATH']}")
    seen = {head.run("-c", USED, head.dashboard).stdout for _ in iter(lambda: running.poll() is None, False)}
    output = "".join(running.communicate())
    assert (running.returncode, "True\n" in seen) == (0, True), output
    assert (laptop / "calls").read_text().split() == ["rsync-down", "down"]
    (copy,) = (laptop / "fetched").iterdir()
    assert f"results: fetched/{copy.name}/last" in output
    assert (copy / "last" / "report.html").is_file()
    assert head.run("-c", USED, head.dashboard).stdout == "False\n"


@pytest.mark.slow
def test_study_left_by_ctrl_c_is_refused_twice_and_stopped_from_elsewhere(head: Head) -> None:
    (head.folder / "laptop" / "pace.py").write_text("SECONDS = 1.0")
    words = ("run", "toy.py", "--name", "long", "--trials", "99", "--storage-path", str(head.folder / "shared"))
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
            "resources.ray.__version__ = '2.54.0'",
            r"cannot join the Ray cluster at .*: Version mismatch: .* Ray: 2\.\d+\.\d+ .* Ray: 2\.54\.0",
        ),
        (
            OTHER_ON_NODES,
            r"\S+ \([\d.]+\) has torch 2\.4 where the driver has 2\.5, lacks ray: install the same on every node",
        ),
    ],
)
def test_other_versions_are_named_before_a_study_starts(head: Head, before: str, message: str) -> None:
    code = f"from study.cluster import resources\n{before}\nresources.connect({head.address!r})"
    refused = head.run("-c", code)
    last = refused.stderr.strip().splitlines()[-1]
    assert re.search(rf"InputError: {message}", last), refused.stderr


@pytest.mark.slow
def test_dashboard_refuses_jobs_without_the_token(head: Head) -> None:
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", b'{"entrypoint": "true"}')
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)

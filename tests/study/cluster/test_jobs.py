"""Studies sent to a cluster as jobs, and queries of it: with a client that only records its calls."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from study.cli import run
from study.cli.main import main
from study.cluster import addresses, jobs
from tests.study.cli.studies import SPACE

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

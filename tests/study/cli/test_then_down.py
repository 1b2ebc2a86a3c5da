"""--then down, with a `ray` that copies a folder as the head's: what is copied, compared and left running."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from study.cli import then_down
from study.cli.main import main
from study.cluster import addresses, jobs
from study.errors import InputError
from study.records.parquet_table import Records
from tests.study.cli.studies import SPACE, written
from tests.study.toy import toy

ADDRESS = "http://127.0.0.1:8265"
SESSION = "session_2026-11-28_22-00-00_123456_789"

RAY = """#!/bin/sh
if [ "$1" = exec ]; then echo "$2 $3" >> {calls}.exec; test -z "$FOREIGN"; exit; fi
echo "$@" >> {calls}
if [ "$1" = "$FAILS" ]; then exit 7; fi
if [ "$1" = rsync-down ]; then cp -r {head}/. "$4"; fi
"""


class Cluster:
    """A head whose storage is a folder here, and the commands of `ray` that were run on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.storage, self.running, self.code = folder / "head", list[str](), 0
        self._calls = folder / "calls"
        written(self.storage)
        (folder / "bin").mkdir()
        (folder / "bin" / "ray").write_text(RAY.format(calls=self._calls, head=self.storage))
        (folder / "bin" / "ray").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setattr(jobs, "list_running", lambda _: self.running)
        monkeypatch.setattr(jobs, "run_on_head", self._run)
        monkeypatch.setattr(jobs, "submit_study", self._submit)
        monkeypatch.setattr(addresses, "check_address", lambda _: None)
        monkeypatch.setattr(addresses, "read_dashboard", lambda *_: SESSION)
        self.submitted: list[str] = []

    def _run(self, address: str, words: list[str], study: str) -> tuple[str, int]:
        assert words[-2:] == ["--storage-path", "/shared/runs"]
        result = CliRunner().invoke(main, [*words[:-1], str(self.storage)])
        return result.output, result.exit_code

    def _submit(self, address: str, space: Path, words: list[str], *others: Any) -> int:
        self.submitted = words
        return self.code

    @property
    def calls(self) -> list[str]:
        """The commands of `ray` but `exec`."""
        return [line.split()[0] for line in read_lines(self._calls)]

    @property
    def executed(self) -> list[str]:
        """The cluster's file and the command of each `ray exec`."""
        return read_lines(self._calls.with_suffix(".exec"))


def read_lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    (tmp_path / "laptop").mkdir()
    monkeypatch.chdir(tmp_path / "laptop")
    Path("cluster.yaml").touch()
    Path("toy.py").write_text(SPACE)
    return Cluster(tmp_path, monkeypatch)


def run(*words: str) -> Result:
    given = ("run", "toy.py", "--address", ADDRESS, "--storage-path", "/shared/runs", "--then", "down", *words)
    return CliRunner().invoke(main, given)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_results_are_copied_before_the_cluster_ends(cluster: Cluster, code: int) -> None:
    cluster.code = code
    result = run()
    assert result.exit_code == code, result.output
    assert cluster.calls == ["rsync-down", "down"]
    (copy,) = then_down.FETCHED.iterdir()
    assert {path.relative_to(copy) for path in copy.rglob("*")} == {
        path.relative_to(cluster.storage) for path in cluster.storage.rglob("*")
    }
    assert "--then" not in cluster.submitted  # the head ends no cluster


@pytest.mark.parametrize("code", [2, 130])
def test_cluster_of_a_study_that_did_not_end_is_left_running(cluster: Cluster, code: int) -> None:
    cluster.code = code
    result = run()
    assert (result.exit_code, cluster.calls) == (code, [])
    assert "the cluster is left running: the study has not ended" in result.stderr


def test_cluster_with_another_job_is_left_running(cluster: Cluster) -> None:
    cluster.running = ["other-1234"]
    result = run()
    assert (result.exit_code, cluster.calls) == (1, [])
    assert "left running: jobs run there: other-1234" in result.stderr


def test_cluster_with_a_job_submitted_during_the_copy_is_left_running(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = then_down._call_ray
    monkeypatch.setattr(then_down, "_call_ray", lambda *words: (original(*words), cluster.running.append("late-1")))
    result = run()
    assert (result.exit_code, cluster.calls) == (1, ["rsync-down"])
    assert "left running: jobs run there: late-1" in result.stderr


@pytest.mark.parametrize(
    ("printed", "code"), [("a warning of the head\n{json}", 0), ("no JSON at all", 1), ('{{"question": 1}}', 1)]
)
def test_output_of_the_head_is_read_behind_warnings(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, printed: str, code: int
) -> None:
    original = cluster._run
    monkeypatch.setattr(jobs, "run_on_head", lambda *words: (printed.format(json=original(*words)[0]), 0))
    result = run()
    assert result.exit_code == code, result.output
    assert ("left running" in result.stderr) == bool(code)


def test_sums_of_two_machines_may_differ_in_the_last_digit() -> None:
    assert then_down._is_same({"a": [1, 0.1 + 0.2]}, {"a": [1, 0.3]})
    assert not then_down._is_same({"a": [1, 0.31]}, {"a": [1, 0.3]})
    assert not then_down._is_same({"a": 1, "b": 2}, {"a": 1})


def test_cluster_is_left_running_if_the_copy_fails(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "rsync-down")
    result = run()
    assert (result.exit_code, cluster.calls) == (1, ["rsync-down"])
    assert "left running: ray rsync-down" in result.stderr
    assert "exit code 7" in result.stderr


def test_cluster_is_left_running_if_the_copy_lacks_rows(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    original = then_down._call_ray

    def copy_without_a_row(*words: str) -> None:
        original(*words)
        if words[0] == "rsync-down":
            records = Records(Path(words[-1]) / "toy", toy().task.metrics)
            rows = records.trials.read_rows()
            shutil.rmtree(records.trials.folder)
            again = Records(Path(words[-1]) / "toy", toy().task.metrics)
            for row in rows[:-1]:
                again.trials.append(row)
            again.trials.flush()

    monkeypatch.setattr(then_down, "_call_ray", copy_without_a_row)
    result = run()
    assert (result.exit_code, cluster.calls) == (1, ["rsync-down"])
    assert "differs from the head's in cells" in result.stderr


@pytest.mark.parametrize("storage", ["/shared/runs", "s3://bucket/runs"])
def test_file_of_another_cluster_is_refused_before_the_study(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setenv("FOREIGN", "1")
    result = run("--storage-path", storage)
    assert (result.exit_code, cluster.submitted, cluster.calls) == (2, [], [])
    assert f"the head of cluster.yaml does not run the Ray at {ADDRESS}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert cluster.executed == [f"cluster.yaml pgrep -f '[s]{SESSION[1:]}'"]


def test_cluster_is_left_running_if_the_address_leads_to_another_one_by_then(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cluster._submit
    monkeypatch.setattr(jobs, "submit_study", lambda *words: (monkeypatch.setenv("FOREIGN", "1"), original(*words))[1])
    result = run("--storage-path", "s3://bucket/runs")
    assert (result.exit_code, cluster.calls, len(cluster.executed)) == (1, [], 2)
    assert "left running: --then down: the head of cluster.yaml does not run the Ray at" in result.stderr


def test_session_is_found_by_its_processes_and_not_by_the_shell_that_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray").write_text('#!/bin/sh\nsh -c "$3 && :"\n')  # as with `ray exec`, a shell has the whole text
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    session = f"session_2026-11-28_22-00-00_123456_{os.getpid()}"
    monkeypatch.setattr(addresses, "read_dashboard", lambda *_: session)
    with pytest.raises(InputError, match="does not run the Ray"):
        then_down.check_cluster(ADDRESS, Path("cluster.yaml"))
    with subprocess.Popen(["sh", "-c", "read _", f"--session-name={session}"], stdin=subprocess.PIPE):
        then_down.check_cluster(ADDRESS, Path("cluster.yaml"))


def test_cluster_is_left_running_if_the_copy_is_another_storages(cluster: Cluster) -> None:
    shutil.rmtree(cluster.storage / "toy" / "trials")
    (cluster.storage / "toy").rename(cluster.storage / "other")
    result = run()
    assert (result.exit_code, cluster.calls) == (1, ["rsync-down"])
    assert "left running" in result.stderr


def test_nothing_is_copied_from_s3(cluster: Cluster) -> None:
    assert run("--storage-path", "s3://bucket/runs").exit_code == 0
    assert cluster.calls == ["down"]


def test_two_copies_have_folders_of_their_own(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    then_down.end_cluster(ADDRESS, Path("cluster.yaml"), "/shared/runs", "toy")
    (first,) = then_down.FETCHED.iterdir()
    clock = SimpleNamespace(now=lambda: datetime.strptime(first.name, "toy-%Y%m%d-%H%M%S"))
    monkeypatch.setattr(then_down, "datetime", clock)
    with pytest.raises(InputError, match=r"left running.*exists"):
        then_down.end_cluster(ADDRESS, Path("cluster.yaml"), "/shared/runs", "toy")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--address", "auto"), "give --address http://HOST:PORT"),
        (("--cluster-file", "docs/gcp.yaml"), "there is no docs/gcp.yaml here"),
        (("--fresh",), "leave --fresh out"),
    ],
)
def test_what_cannot_end_a_cluster_is_refused_before_the_study(
    cluster: Cluster, words: tuple[str, ...], message: str
) -> None:
    result = run(*words)
    assert (result.exit_code, cluster.submitted) == (2, [])
    assert message in result.stderr


def test_dry_run_ends_nothing(cluster: Cluster) -> None:
    assert run("--dry-run").exit_code == 0
    assert cluster.calls == []


def test_json_of_show_has_the_compared_parts(cluster: Cluster) -> None:
    output, _ = cluster._run(ADDRESS, ["show", "toy", "--json", "--storage-path", "/shared/runs"], "toy")
    assert set(then_down.COMPARED) <= json.loads(output).keys()

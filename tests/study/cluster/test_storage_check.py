"""Nodes that do not share the storage are named before a study starts; S3 does for such nodes."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from study.cluster.storage_check import TOKEN_FILE, UNREADABLE, not_shared_message, probe_storage
from study.run import main
from study.storage.mirror import Mirror
from tests.study import s3
from tests.study.cluster.nodes import start_cluster
from tests.study.folder import Folder, is_whole

pytestmark = pytest.mark.xdist_group("storage check")  # whose cluster is one for all

HIDDEN = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
"""Runs a command for which a folder is another one than for everybody else: as on a machine of its own."""


def test_node_writes_its_file_if_it_reads_the_token_and_nothing_otherwise(tmp_path: Path) -> None:
    shared, other = Mirror(tmp_path / "shared"), Mirror(tmp_path / "other")
    (tmp_path / "shared" / "trip").mkdir(parents=True)
    (tmp_path / "shared" / "trip" / TOKEN_FILE).write_text("abc")
    assert probe_storage(shared, "trip", "abc", "node") == ""
    assert (tmp_path / "shared" / "trip" / "node").is_file()
    assert probe_storage(other, "trip", "abc", "node") == UNREADABLE
    assert not (tmp_path / "other").exists()
    assert probe_storage(shared, "trip", "another run's", "node") == UNREADABLE


def test_node_that_cannot_write_or_reach_the_server_reports_it(tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    (tmp_path / "trip" / TOKEN_FILE).write_text("abc")
    blocked = probe_storage(Mirror(tmp_path), "trip", "abc", f"{TOKEN_FILE}/node")
    assert blocked == f"cannot write {tmp_path}/trip/{TOKEN_FILE} (File exists)"
    nobody = Mirror(tmp_path, "s3://bucket/x", "http://127.0.0.1:9")
    assert probe_storage(nobody, "trip", "abc", "node").startswith(
        "reports: s3://bucket/x at http://127.0.0.1:9: no answer"
    )


def test_refusal_names_the_nodes_and_the_ways_out(tmp_path: Path) -> None:
    said = not_shared_message(tmp_path, {"gpu-1 (10.0.0.2)": UNREADABLE, "gpu-2 (10.0.0.3)": "has not answered"})
    assert said.startswith(f"storage {tmp_path} is not shared by all nodes (gpu-1 (10.0.0.2) does not see")
    assert "gpu-2 (10.0.0.3) has not answered" in said
    assert said.endswith("(NFS), or s3://BUCKET/PREFIX")
    assert "\n" not in said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def cluster(folder: Folder, endpoint: str) -> Iterator[str]:
    """The address of a head without trials and of a node that has another disk for what is below `folder.runs`."""
    folder.runs.mkdir()
    alone = ["unshare", "--mount", "sh", "-c", HIDDEN, str(folder.runs)]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a node with a disk of its own needs a mount namespace, which cannot be had here")
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3.environment(endpoint, folder.runs / "cache").items():
            environment.setenv(name, value)  # nodes have keys of their own
        made = stack.enter_context(start_cluster())
        start = ["-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", f"--address={made.address}"]
        node = subprocess.Popen([*alone, sys.executable, *start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            s3.wait_until(lambda: len(made.global_state._live_node_ids()) == 2, 60)
            yield str(made.address)
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(timeout=60)


@pytest.mark.cluster
def test_storage_that_a_node_does_not_see_is_refused_before_the_study_starts(folder: Folder, cluster: str) -> None:
    folder.write()
    done = CliRunner().invoke(main, folder.command("--address", cluster)[3:])
    assert done.exit_code == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: storage {folder.runs} is not shared by all nodes ({platform.node()} (")
    assert line.count(UNREADABLE) == 1
    assert not (folder.study / "study.json").exists()
    assert not list(folder.runs.glob("round-trip-*"))


@pytest.mark.cluster
def test_study_on_s3_runs_on_a_node_that_shares_no_disk_with_its_driver(
    folder: Folder, cluster: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment(endpoint, folder.runs / "cache").items():
        monkeypatch.setenv(name, value)
    folder.write()
    done = folder.run("--address", cluster, "--storage-path", f"s3://{s3.BUCKET}/nodes")
    assert done.returncode == 0, done.stderr
    assert not list((folder.runs / "cache").rglob("trained_epochs")), "trials were to run elsewhere"
    assert list((folder.runs / "cache").rglob("made"))
    s3.land(endpoint, "nodes", folder.runs)
    is_whole(folder)
    assert s3.objects(endpoint, "nodes/teachers") == {"simulated/made": b""}
    confirmed = folder.trials().query("phase == 'confirm'").trial_id
    assert set(s3.objects(endpoint, "nodes/toy/checkpoints")) == {f"{trial}/trained_epochs" for trial in confirmed}
    assert not [name for name in s3.objects(endpoint, "nodes") if "round-trip" in name]

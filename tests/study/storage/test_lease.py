"""Studies on S3: who may drive one, trials that move between nodes, commands from elsewhere, what the user can mend."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import study as package
from reports.build import main as build
from reports.compare import main as compare
from study.cli import list_studies as listing
from study.cli.main import main
from study.cli.resume import words_to_go_on
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.records.segments import Records, write_study
from study.records.study_json import document, stop_requested
from study.space_file import Space
from study.storage import lease, local_copy, remote, worker_sync
from study.storage.lease import acquire_lease
from study.storage.locations import local_path, mirror_of
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError
from study.study import Study
from tests.study import s3
from tests.study.s3 import Copy, put
from tests.study.toy import drive, job_of, open_flow, toy

# -- who drives --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(local_copy, "LOCK_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(lease, "PUSH_SECONDS", 0.05)


def rows(storage: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    records = Records(storage / "toy", toy().task.metrics)
    return records.trials.rows(), records.epochs.rows()


def run(storage: Path, count: int | None = None) -> Coordinator:
    """A run of the toy study, of so many epochs."""
    flow = open_flow(toy(), storage)
    flow.flush_seconds = 60.0
    whole = drive(flow, storage, count)
    flow.flush()
    write_study(storage / "toy", described(toy(), whole))
    return flow


def described(study: Study, finished: bool) -> dict[str, Any]:
    space = Space(study, package, Path("toy.py"), "", "")
    inputs = {"data": {"fingerprint": "simulated"}}
    return document(study, space, inputs, None, "python -m study.run toy.py") | {"finished": finished}


@pytest.mark.usefixtures("hurried")
def test_second_driver_is_refused_for_as_long_as_the_lease_is_fresh(
    copy: Copy,
) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        run(here, 5)
        other = copy("other")
        refused = pytest.raises(InputError, match=r"s3://.*/toy is being run by .*:\d+: .* wait 1[12]\d s")
        with refused, acquire_lease(other / "toy"):
            pass
        assert remote.read_driver(other / "toy")
        with pytest.raises(InputError, match="by another process of this machine"), acquire_lease(here / "toy"):
            pass
    assert not remote.read_driver(other / "toy")
    with acquire_lease(other / "toy"):
        assert rows(other) == rows(here)


def killed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, of which the second one is killed before anything of it has arrived."""
    with acquire_lease(storage / "toy"):
        run(storage, 5)
    with monkeypatch.context() as cut:
        cut.setattr(lease.SyncThread, "_sync", lambda thread: None)
        cut.setattr(lease.SyncThread, "_finish", lambda thread: None)
        with acquire_lease(storage / "toy"):
            run(storage, 3)


@pytest.mark.usefixtures("hurried")
def test_driver_that_was_killed_goes_on_at_once_where_it_was_with_rows_that_never_arrived(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    killed(here, monkeypatch)
    kept = rows(here)
    assert len(kept[1]) == 8
    with acquire_lease(here / "toy"):
        assert rows(here) == kept
    other = copy("other")
    with acquire_lease(other / "toy"):
        assert rows(other) == kept


@pytest.mark.usefixtures("hurried")
def test_driver_that_was_killed_is_followed_elsewhere_when_its_lease_is_over(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    killed(here, monkeypatch)
    other = copy("other")
    with pytest.raises(InputError, match="is being run by"), acquire_lease(other / "toy"):
        pass
    with monkeypatch.context() as later:
        later.setattr(lease, "STALE_SECONDS", 0.0)
        with acquire_lease(other / "toy"):
            assert len(rows(other)[1]) == 5
            run(other, 2)
    whole = rows(other)
    with acquire_lease(here / "toy"):
        assert rows(here) == whole, "another machine has gone on: what never arrived counts no more"


@pytest.mark.usefixtures("hurried")
def test_driver_whose_lease_was_taken_stops_and_writes_nothing_more(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)
    lost = pytest.raises(StorageError, match="toy is now run by other:1")
    with lost, acquire_lease(here / "toy"):
        mirror_of(here).write_text("toy/.lease", json.dumps({"by": "other:1", "mark": "another"}))
        waited(lambda: stop_requested(here / "toy"))
        put(here, toy__report="mine")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy")


@pytest.mark.usefixtures("hurried")
def test_driver_hears_a_request_to_stop_from_elsewhere(copy: Copy) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        remote.send_stop_request(copy("other") / "toy")
        waited(lambda: stop_requested(here / "toy"))
    assert mirror_of(here).read_text("toy/stop") is None


@pytest.mark.usefixtures("hurried")
def test_storage_that_answers_no_more_stops_the_study_and_what_is_here_goes_there_later(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "FINAL_PUSH_SECONDS", 0.1)
    with monkeypatch.context() as broken:
        ended = pytest.raises(StorageError, match=r"takes no more .*no answer.*all rows are in")
        with ended, acquire_lease(here / "toy"):
            broken.setattr(Mirror, "_upload", lambda self, path: (_ for _ in ()).throw(OSError("curlCode: 7")))
            run(here, 5)
            waited(lambda: stop_requested(here / "toy"))
        kept = rows(here)
    with acquire_lease(here / "toy"):
        pass
    assert rows(here) == kept
    assert "study.json" in s3.objects(endpoint, f"{tmp_path.name}/toy")


@pytest.mark.usefixtures("hurried")
def test_interrupted_study_whose_rows_did_not_arrive_says_so(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    here = copy()
    monkeypatch.setattr(lease, "FINAL_PUSH_SECONDS", 0.0)

    def out_of_reach(mirror: Mirror, *places: str, delete: bool = False) -> None:
        raise ValueError("nonsense")

    monkeypatch.setattr(Mirror, "push", out_of_reach)
    with pytest.raises(StorageError, match=r"\(nonsense\); all rows are in"), acquire_lease(here / "toy"):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("hurried")
def test_rows_that_never_arrived_stay_aside_when_another_machine_has_gone_on(copy: Copy) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        run(here, 1)
    (here / "toy" / "epochs" / "00000099.parquet").write_bytes(b"never arrived")
    there = copy("there")
    with acquire_lease(there / "toy"):
        run(there, 1)
    copy()
    remote.refresh_copy(here / "toy")
    assert not (here / "toy" / "epochs" / "00000099.parquet").exists()
    (kept,) = (here / "toy").glob(".left-*/epochs/00000099.parquet")
    assert kept.read_bytes() == b"never arrived"


def waited(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


# -- a trial on one node after another ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_trial_goes_on_from_its_checkpoint_on_another_node(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here, node = copy(), copy("node")
    mirror, flow = mirror_of(node), open_flow(toy(), here)
    teacher, trial = flow.next(), flow.next()
    assert teacher
    assert trial
    for run, epochs in ((teacher, 2), (trial, 3)):
        job = job_of(flow.study, run, node)
        worker_sync.fetch_trial_files(mirror, job)
        for row, _ in zip(
            job.task.prepare(job) if run is teacher else job.task.train(job), range(epochs), strict=False
        ):
            worker_sync.push_checkpoint(mirror, job, complete=row["epoch"] == run.trial.epochs)
        worker_sync.drop_local_copy(mirror, job.checkpoint)
        assert not job.checkpoint.exists()
    there = s3.objects(endpoint, tmp_path.name)
    assert there == {
        "teachers/simulated/made": b"",
        f"toy/checkpoints/{teacher.trial.id}/trained_epochs": b"..",
        f"toy/checkpoints/{trial.trial.id}/trained_epochs": b"...",
    }
    other = copy("other")
    job = job_of(flow.study, trial, other)
    put(other, **{f"toy__checkpoints__{trial.trial.id}__trained_epochs": "."})  # of an earlier visit
    worker_sync.fetch_trial_files(mirror_of(other), job)
    assert (job.checkpoint / "trained_epochs").read_bytes() == b"..."
    worker_sync.delete_checkpoint(mirror, node / "toy" / "checkpoints" / trial.trial.id)
    worker_sync.fetch_trial_files(mirror_of(other), job)
    assert not (job.checkpoint / "trained_epochs").exists(), "it is to start over"


@pytest.mark.usefixtures("hurried")
def test_checkpoint_of_a_trial_that_has_ended_goes_once_that_is_known_there(
    copy: Copy, endpoint: str, tmp_path: Path
) -> None:
    here = copy()
    put(here, toy__checkpoints__over__state="1", toy__checkpoints__on__state="2")
    mirror = mirror_of(here)
    mirror.push("toy/checkpoints")
    worker_sync.mark_for_deletion(
        mirror, here / "toy" / "checkpoints" / "on"
    )  # before this machine drove: it may go on elsewhere
    with acquire_lease(here / "toy"):
        worker_sync.mark_for_deletion(mirror, here / "toy" / "checkpoints" / "over")
        assert len(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == 2
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")) == {"on/state"}
    worker_sync.delete_checkpoint(mirror, here / "toy" / "checkpoints" / "on")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy/checkpoints")


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_commands_look_at_a_study_from_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}"
    call = CliRunner().invoke
    with acquire_lease(here / "toy"):
        run(here)
        waited(lambda: mirror_of(here).read_text("toy/study.json") is not None)
        copy("other")
        (listed,) = json.loads(call(main, ["list", "--storage-path", address, "--json"]).stdout)
        assert (listed["name"], listed["state"], listed["done"]) == ("toy", "running", 15)
        assert "is being run already" in call(main, ["resume", f"{address}/toy"]).stderr
        asked = call(main, ["stop", "toy", "--storage-path", address, "--wait", "0"])
        assert asked.exit_code == 1, asked.output
        waited(lambda: stop_requested(here / "toy"))
    told = json.loads(call(main, ["show", f"{address}/toy", "--json"]).stdout)
    assert (told["state"], told["next"]) == ("finished", f"write its report: python -m reports.build {address}/toy")
    folder = local_path(address) / "toy"
    assert words_to_go_on(folder, listing.described(folder), []) == ["toy.py", "--storage-path", address]
    page = call(build, [f"{address}/toy"])
    assert page.stdout == f"{address}/toy/report.html\n", page.output
    assert "report.html" in s3.objects(endpoint, f"{tmp_path.name}/toy")
    run(tmp_path / "folder")
    beside = call(compare, [f"{address}/toy", str(tmp_path / "folder" / "toy"), "--out", str(tmp_path / "page.html")])
    assert beside.exit_code == 0, beside.output
    assert (tmp_path / "page.html").is_file()
    nothing = call(main, ["show", f"{address}/nothing"])
    assert nothing.exit_code == 2
    assert nothing.stderr.startswith(f"error: no study 'nothing' below {address} (there are: toy)")


# -- what the user can mend --------------------------------------------------------------------------------------------


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that lets nobody in."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_GET = do_PUT = do_HEAD  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "server", "message"),
    [
        ("s3://nowhere/x", "moto", "s3://nowhere/x at http://.*: there is no such bucket: create it"),
        ("s3://bucket/x", "refusing", "s3://bucket/x at http://.*: access is denied: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x", "http://127.0.0.1:9", "s3://bucket/x at http://127.0.0.1:9: no answer: check the network"),
        ("gs://bucket/x", "moto", "'gs://bucket/x': allowed are a folder, local or shared, and s3://BUCKET/PREFIX"),
        ("s3://", "moto", "'s3://': allowed are a folder"),
    ],
)
def test_storage_that_cannot_be_used_is_told_in_a_line_and_soon(
    copy: Copy, refusing: str, monkeypatch: pytest.MonkeyPatch, address: str, server: str, message: str
) -> None:
    if server != "moto":
        monkeypatch.setenv("AWS_ENDPOINT_URL", refusing if server == "refusing" else server)
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as told:
        local_path(address)
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 15

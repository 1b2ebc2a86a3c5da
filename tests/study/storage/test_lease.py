"""The lease of a study on S3: one driver at a time, take-over after a kill, and rows that reach S3 or are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.code_version import CodeVersion
from study.engine.coordinator import Coordinator
from study.errors import InputError
from study.records.lock import is_stop_requested, read_skip_requests
from study.records.parquet_table import Records
from study.records.study_json import build_study_json, write_study
from study.space_file import Space
from study.storage import lease, remote
from study.storage.lease import acquire_lease
from study.storage.locations import mirror_of
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError
from study.study import Study
from tests.study import s3
from tests.study.s3 import Copy, put
from tests.study.toy import drive, open_coordinator, toy
from trainables.tasks import simulated


def rows(storage: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    records = Records(storage / "toy", toy().task.metrics)
    return records.trials.read_rows(), records.epochs.read_rows()


def run(storage: Path, count: int | None = None) -> Coordinator:
    """A run of the toy study, of so many epochs."""
    coordinator = open_coordinator(toy(), storage)
    coordinator.writer.flush_seconds = 60.0
    whole = drive(coordinator, storage, count)
    coordinator.writer.flush()
    write_study(storage / "toy", described(toy(), whole))
    return coordinator


def described(study: Study, finished: bool) -> dict[str, Any]:
    space = Space(study, simulated, Path("toy.py"), "", "", CodeVersion({"space file": "0" * 16}))
    inputs = {"data": {"fingerprint": "simulated"}}
    return build_study_json(study, space, inputs, None, "python -m study.run toy.py") | {"finished": finished}


@pytest.mark.usefixtures("hurried")
def test_second_driver_is_refused_while_the_lease_is_valid(
    copy: Copy,
) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        run(here, 5)
        other = copy("other")
        refused = pytest.raises(InputError, match=r"s3://.*/toy is being run by .*:\d+: .* wait 1[12]\d s")
        with refused, acquire_lease(other / "toy"):
            pass
        assert remote.find_driver(other / "toy")
        with pytest.raises(InputError, match="by another process of this machine"), acquire_lease(here / "toy"):
            pass
    assert not remote.find_driver(other / "toy")
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
def test_killed_driver_resumes_at_once_with_rows_that_never_reached_s3(
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
def test_another_machine_takes_over_from_a_killed_driver_once_its_lease_has_expired(
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
def test_driver_that_loses_its_lease_stops_and_writes_nothing_more(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)

    def is_stopped_by_other_driver() -> bool:
        # written again as that driver would: a renewal that had read the lease before may have replaced it
        mirror_of(here).write_text("toy/.lease", json.dumps({"by": "other:1", "mark": "another"}))
        return is_stop_requested(here / "toy")

    lost = pytest.raises(StorageError, match="toy is now run by other:1")
    with lost, acquire_lease(here / "toy"):
        s3.wait_until(is_stopped_by_other_driver)
        put(here, toy__report="mine")
    assert not s3.objects(endpoint, f"{tmp_path.name}/toy")


@pytest.mark.usefixtures("hurried")
def test_stop_request_from_another_machine_reaches_the_driver(copy: Copy) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        remote.send_stop_request(copy("other") / "toy")
        s3.wait_until(lambda: is_stop_requested(here / "toy"))
    assert mirror_of(here).read_text("toy/stop") is None


@pytest.mark.usefixtures("hurried")
def test_skip_requests_from_another_machine_reach_the_driver_once(copy: Copy) -> None:
    here = copy()
    with acquire_lease(here / "toy"):
        for trial_id in ("a1", "b2", "a1"):
            remote.send_skip_request(copy("other") / "toy", trial_id)
        s3.wait_until(lambda: read_skip_requests(here / "toy") == {"a1", "b2"})
        s3.wait_until(lambda: not mirror_of(here).list_object_names("toy/.skip"))
    with acquire_lease(copy("third") / "toy"):  # the next driver knows them, wherever it is
        assert read_skip_requests(copy("third") / "toy") == {"a1", "b2"}
        assert sorted((here / "toy" / "skip").read_text().split()) == ["a1", "b2"]


@pytest.mark.usefixtures("hurried")
def test_unreachable_storage_stops_the_study_and_gets_its_rows_from_the_next_run(
    copy: Copy, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "FINAL_PUSH_SECONDS", 0.1)
    with monkeypatch.context() as broken:
        ended = pytest.raises(StorageError, match=r"cannot be written .*no answer.*all rows are in")
        with ended, acquire_lease(here / "toy"):
            broken.setattr(Mirror, "_upload", lambda self, path: (_ for _ in ()).throw(OSError("curlCode: 7")))
            run(here, 5)
            s3.wait_until(lambda: is_stop_requested(here / "toy"))
        kept = rows(here)
    with acquire_lease(here / "toy"):
        pass
    assert rows(here) == kept
    assert "study.json" in s3.objects(endpoint, f"{tmp_path.name}/toy")


@pytest.mark.usefixtures("hurried")
def test_interrupted_study_reports_rows_that_did_not_reach_s3(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    here = copy()
    monkeypatch.setattr(lease, "FINAL_PUSH_SECONDS", 0.0)

    def out_of_reach(mirror: Mirror, *places: str, delete: bool = False) -> None:
        raise ValueError("nonsense")

    monkeypatch.setattr(Mirror, "push", out_of_reach)
    with pytest.raises(StorageError, match=r"\(nonsense\); all rows are in"), acquire_lease(here / "toy"):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("hurried")
def test_rows_that_never_reached_s3_are_set_aside_when_another_machine_has_continued(copy: Copy) -> None:
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

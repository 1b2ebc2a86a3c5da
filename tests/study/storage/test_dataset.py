"""Data sets on S3: fetched once for each node and verified against the checksums of the driver."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from study.cli.main import main
from study.storage.dataset import RemoteDataset, fetch_dataset
from study.storage.locations import local_path, mirror_of
from study.storage.mirror import Mirror
from study.storage.verified_copy import DamagedCopyError
from tests.study import s3
from tests.study.s3 import Copy, put


@pytest.fixture
def data(copy: Copy, tmp_path: Path) -> RemoteDataset:
    """A data set that the driver has read, sent to a node without a copy."""
    copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}-data"
    put(local_path(address, "data"), train__a="1", train__b="2", note="3")
    mirror_of(local_path(address, "data")).push("")
    found = fetch_dataset(address)
    assert found is not None
    shutil.rmtree(found.mirror.folder)
    return pickle.loads(pickle.dumps(found))


def test_data_set_is_fetched_once_and_verified_against_the_drivers_checksums(
    data: RemoteDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(data.mirror.folder, train__c="of an earlier version")
    data.fetch()
    assert s3.local_files(data.mirror.folder) == {"train/a": b"1", "train/b": b"2", "note": b"3"}
    monkeypatch.setattr(Mirror, "_list_objects", lambda self, place: pytest.fail("listed again"))
    data.fetch()


@pytest.mark.parametrize(("change", "message"), [("9", "/note is damaged"), (None, "/note is gone since")])
def test_data_set_that_changed_after_the_driver_read_it_is_refused(
    data: RemoteDataset, change: str | None, message: str
) -> None:
    data.mirror.delete_object("note")
    if change:
        data.mirror.write_text("note", change)
    with pytest.raises(DamagedCopyError, match=message):
        data.fetch()


def test_profile_gets_a_local_folder_for_a_data_set_on_s3_and_nothing_is_downloaded_for_a_folder(
    data: RemoteDataset, tmp_path: Path
) -> None:
    space = tmp_path / "toy.py"
    space.write_text(PROFILES)
    for given in (data.mirror.uri, str(data.fetch() or data.mirror.folder)):
        words = ["run", str(space), "--data-dir", given, "--storage-path", str(tmp_path / "runs"), "--dry-run"]
        said = CliRunner().invoke(main, words)
        assert "question: 3" in said.output, said.output
    assert fetch_dataset(str(data.mirror.folder)) is None


PROFILES = """
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent

study = {"read": lambda data_dir: Study(
    name="toy", question="question: " + (data_dir / "note").read_text(), task=Simulated(),
    students=(SimulatedStudent(),), arms=(Arm("plain", SimulatedLoss(needs_teacher=False), baseline=True),),
    budget=Budget(trials=1, epochs=1, seeds=1),
)}
"""

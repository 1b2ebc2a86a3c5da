"""A storage on S3 and its copies: what is moved, in which order, who may write, and what a kill leaves."""

from __future__ import annotations

import errno
import pickle
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from study.cli.main import main
from study.records.segments import Records
from study.storage.dataset import RemoteDataset, fetch_dataset
from study.storage.locations import display_path, local_path, mirror_of
from study.storage.mirror import DamagedCopyError, Mirror
from study.storage.s3 import StorageError
from tests.study import s3
from tests.study.records.test_segments import epoch_row
from tests.study.s3 import Copy, put


def content(folder: Path) -> dict[str, bytes]:
    """The files of a copy, without those that stay."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if "/." not in f"/{name}"}


# -- there and back ----------------------------------------------------------------------------------------------------


def test_storage_path_of_a_folder_is_that_folder_and_its_mirror_moves_nothing(tmp_path: Path) -> None:
    assert local_path(str(tmp_path / "x" / ".." / "runs")) == tmp_path / "runs"
    mirror = mirror_of(tmp_path)
    put(tmp_path, a="1")
    mirror.push("", delete=True)
    mirror.pull("", delete=True)
    mirror.delete_folder("a")
    assert content(tmp_path) == {"a": b"1"}
    assert display_path(tmp_path / "a") == str(tmp_path / "a")


def test_files_are_the_same_on_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1", toy__deep__b="22", toy__empty="", beside="no")
    mirror_of(here).push("toy")
    other = copy("other")
    assert other != here
    mirror_of(other).pull("toy/deep", "toy/a", "toy/empty", "toy/nowhere")
    assert content(other) == {"toy/a": b"1", "toy/deep/b": b"22", "toy/empty": b""}
    assert content(other) == s3.objects(endpoint, tmp_path.name), "plain objects, for any other tool"


def test_only_what_has_changed_is_moved(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    here, moved = copy(), []
    for step in ("_upload", "_download"):
        original = getattr(Mirror, step)
        monkeypatch.setattr(Mirror, step, lambda self, *what, of=original: (moved.append(what[-1]), of(self, *what)))
    put(here, toy__a="1", toy__b="22")
    mirror = mirror_of(here)
    mirror.push("toy")
    mirror.push("toy")
    mirror.pull("toy")
    assert sorted(moved) == [here / "toy" / "a", here / "toy" / "b"]
    put(here, toy__b="33")  # of the same size
    moved.clear()
    mirror.push("toy")
    assert moved == [here / "toy" / "b"]


def test_names_that_begin_with_a_dot_stay(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1")
    put(here / "toy", **{".lock": "me", ".deep__b": "2"})
    mirror_of(here).push("toy")
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy")) == {"a"}
    mirror_of(here).pull("toy", delete=True)
    assert (here / "toy" / ".lock").is_file()


def test_delete_option_deletes_on_one_side_what_is_gone_on_the_other(copy: Copy) -> None:
    here = copy()
    put(here, toy__a="1", toy__b="2")
    mirror_of(here).push("toy")
    other = copy("other")
    mirror_of(other).pull("toy")
    (here / "toy" / "a").unlink()
    mirror_of(here).push("toy")
    mirror_of(other).pull("toy", delete=True)
    assert set(content(other)) == {"toy/a", "toy/b"}
    mirror_of(here).push("toy", delete=True)
    mirror_of(other).pull("toy", delete=True)
    assert set(content(other)) == {"toy/b"}


# -- rows, whatever happens meanwhile ----------------------------------------------------------------------------------


def told(records: Records, number: int) -> None:
    """A trial of two epochs, flushed after each."""
    trial = {"trial_id": f"t{number}", "cell": "s / a", "phase": "search", "state": "RUNNING", "epochs_done": 0}
    for epoch in (1, 2):
        records.epochs.append(epoch_row(f"t{number}", epoch, number / 10))
        records.trials.append(trial | ({"state": "COMPLETE", "epochs_done": 2} if epoch == 2 else {}))
        records.flush()


def is_consistent(storage: Path, trials: int) -> None:
    """At least so many trials, and of each that has ended all epochs."""
    mirror_of(storage).pull("toy", delete=True)
    records = Records(storage / "toy", ["val/accuracy"])
    ended = [row["trial_id"] for row in records.trials.rows() if row["state"] == "COMPLETE"]
    epochs = [(row["trial_id"], row["epoch"]) for row in records.epochs.rows()]
    assert ended[:trials] == [f"t{number}" for number in range(trials)]
    assert all((trial, epoch) in epochs for trial in ended for epoch in (1, 2))


ROWS = ("toy/epochs", "toy/trials")


@pytest.mark.parametrize("steps", [0, 1, 3, 7, 8, 10, 14])
def test_push_that_is_cut_anywhere_leaves_all_rows_that_were_there(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Of each table the eight segments become one here; there it is sent, and then the six that had arrived go."""
    here = copy()
    records, left = Records(here / "toy", ["val/accuracy"]), iter(range(steps))
    for number in range(3):
        told(records, number)
    mirror_of(here).push(*ROWS, delete=True)
    told(records, 3)

    def counted(of: Callable[..., None]) -> Callable[..., None]:
        def step(self: Mirror, what: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            of(self, what)

        return step

    with monkeypatch.context() as cut:
        for name in ("_upload", "delete_object"):
            cut.setattr(Mirror, name, counted(getattr(Mirror, name)))
        with suppress(KeyboardInterrupt) if steps < 14 else nullcontext():
            mirror_of(here).push(*ROWS, delete=True)
    assert next(left, None) is None, "these are all steps"
    is_consistent(copy("other"), 4 if steps == 14 else 3)
    mirror_of(here).push(*ROWS, delete=True)
    is_consistent(copy("third"), 4)
    assert len(list((here / "toy" / "epochs").iterdir())) == 1


def test_rows_written_during_a_push_never_end_a_trial_before_its_epochs(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    records, numbers = Records(here / "toy", ["val/accuracy"]), iter(range(100))

    def busy(of: Callable[..., Any]) -> Callable[..., Any]:
        def listed(self: Mirror, place: str) -> Any:
            told(records, next(numbers))
            return of(self, place)

        return listed

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Mirror, "list_files", busy(Mirror.list_files))
        for _ in range(6):
            mirror_of(here).push(*ROWS, delete=True)
    pushed = next(numbers)
    assert pushed >= 12
    is_consistent(copy("other"), pushed - 2)


# -- what trials share -------------------------------------------------------------------------------------------------


def is_fine(path: Path) -> bool:
    return path.read_text().startswith("fine")


def test_shared_files_are_fetched_and_verified_once(copy: Copy) -> None:
    here = copy()
    put(here, outputs__a="fine 1", outputs__b="fine 2")
    mirror_of(here).push("outputs")
    other, looked_at = copy("other"), []

    def looked(path: Path) -> bool:
        looked_at.append(path.name)
        return is_fine(path)

    mirror = mirror_of(other)
    threads = [threading.Thread(target=mirror.pull_verified, args=(("outputs",), looked)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(looked_at) == ["a", "b"]
    assert content(other) == {"outputs/a": b"fine 1", "outputs/b": b"fine 2"}


def test_damaged_copy_is_fetched_again_and_a_damaged_original_is_named(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    put(here, outputs__a="fine")
    mirror_of(here).push("outputs")
    other, fetch, broken = copy("other"), Mirror._download, iter(["once"])

    def torn(self: Mirror, info: Any, path: Path) -> None:
        fetch(self, info, path)
        if next(broken, None):
            path.write_text("torn")

    monkeypatch.setattr(Mirror, "_download", torn)
    mirror_of(other).pull_verified(("outputs",), is_fine)
    assert content(other) == {"outputs/a": b"fine"}
    put(here, outputs__a="damaged")
    mirror_of(here).push("outputs")
    with pytest.raises(DamagedCopyError, match=r"s3://bucket/.*/outputs/a is damaged: delete it there"):
        mirror_of(other).pull_verified(("outputs",), is_fine)


@pytest.fixture
def data(copy: Copy, tmp_path: Path) -> RemoteDataset:
    """As the driver has read it, on its way to a node that has nothing of it."""
    copy()
    address = f"s3://{s3.BUCKET}/{tmp_path.name}-data"
    put(local_path(address, "data"), train__a="1", train__b="2", note="3")
    mirror_of(local_path(address, "data")).push("")
    found = fetch_dataset(address)
    assert found is not None
    shutil.rmtree(found.mirror.folder)
    return pickle.loads(pickle.dumps(found))


def test_data_set_is_fetched_once_and_verified_against_what_the_driver_has_read(
    data: RemoteDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(data.mirror.folder, train__c="of an earlier edition")
    data.fetch()
    assert content(data.mirror.folder) == {"train/a": b"1", "train/b": b"2", "note": b"3"}
    monkeypatch.setattr(Mirror, "_list_objects", lambda self, place: pytest.fail("asked again"))
    data.fetch()


@pytest.mark.parametrize(("change", "message"), [("9", "/note is damaged"), (None, "/note is gone since")])
def test_data_set_that_has_changed_since_the_driver_has_read_it_is_refused(
    data: RemoteDataset, change: str | None, message: str
) -> None:
    data.mirror.delete_object("note")
    if change:
        data.mirror.write_text("note", change)
    with pytest.raises(DamagedCopyError, match=message):
        data.fetch()


def test_profile_of_a_data_set_on_s3_gets_a_folder_and_nothing_is_downloaded_for_one_in_a_folder(
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


def test_full_disk_here_is_not_blamed_on_the_server(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "s3://bucket/x")
    message = f"^{tmp_path} cannot be written .No space left on device.: make room there$"
    with pytest.raises(StorageError, match=message), mirror.translate_errors():
        raise OSError(errno.ENOSPC, "No space left on device")  # as copying says it, without a file's name

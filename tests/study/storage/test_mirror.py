"""Mirrors: which files move, in which order, and what remains after an interrupted transfer."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from study.records.parquet_table import Records
from study.storage.locations import mirror_of
from study.storage.mirror import Mirror
from tests.study import s3
from tests.study.records.test_parquet_table import epoch_row
from tests.study.s3 import Copy, put


def test_files_are_the_same_on_another_machine(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1", toy__deep__b="22", toy__empty="", beside="no")
    mirror_of(here).push("toy")
    other = copy("other")
    assert other != here
    mirror_of(other).pull("toy/deep", "toy/a", "toy/empty", "toy/nowhere")
    assert s3.local_files(other) == {"toy/a": b"1", "toy/deep/b": b"22", "toy/empty": b""}
    assert s3.local_files(other) == s3.objects(endpoint, tmp_path.name), "plain objects, for any other tool"


def test_only_changed_files_are_moved(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    here, moved = copy(), []
    for step in ("_upload", "_download"):
        original = getattr(Mirror, step)
        monkeypatch.setattr(
            Mirror, step, lambda self, *what, of=original: (moved.append(Path(what[-1].name).name), of(self, *what))
        )
    put(here, toy__a="1", toy__b="22")
    mirror = mirror_of(here)
    mirror.push("toy")
    mirror.push("toy")
    mirror.pull("toy")
    assert sorted(moved) == ["a", "b"]
    put(here, toy__b="33")  # of the same size
    moved.clear()
    mirror.push("toy")
    assert moved == ["b"]


def test_objects_replaced_while_they_are_read_are_read_again(copy: Copy) -> None:
    writer, reader = mirror_of(copy()), mirror_of(copy("other"))
    writer.write_text("toy/a", "0:")
    done = threading.Event()

    def replace() -> None:
        for number in itertools.count(1):  # now longer, now shorter, and never of a size that it had before
            if done.is_set():
                return
            length = number if number % 2 else 50_000 - number
            writer.write_text("toy/a", f"{length}:{'x' * length}")
            time.sleep(0.03)  # a reading takes several requests, and longer on a busy machine

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(100):
            reader.pull("toy")
            text, _ = reader.read_text("toy/a") or ("", 0.0)
            for content in (text, (reader.folder / "toy" / "a").read_text()):
                length, _, rest = content.partition(":")
                assert rest == "x" * int(length)
    finally:
        done.set()
        thread.join()


def test_names_that_begin_with_a_dot_are_not_moved(copy: Copy, endpoint: str, tmp_path: Path) -> None:
    here = copy()
    put(here, toy__a="1")
    put(here / "toy", **{".lock": "me", ".deep__b": "2"})
    mirror_of(here).push("toy")
    assert set(s3.objects(endpoint, f"{tmp_path.name}/toy")) == {"a"}
    mirror_of(here).pull("toy", delete=True)
    assert (here / "toy" / ".lock").is_file()


def test_delete_option_deletes_files_that_are_gone_on_the_other_side(copy: Copy) -> None:
    here = copy()
    put(here, toy__a="1", toy__b="2")
    mirror_of(here).push("toy")
    other = copy("other")
    mirror_of(other).pull("toy")
    (here / "toy" / "a").unlink()
    mirror_of(here).push("toy")
    mirror_of(other).pull("toy", delete=True)
    assert set(s3.local_files(other)) == {"toy/a", "toy/b"}
    mirror_of(here).push("toy", delete=True)
    mirror_of(other).pull("toy", delete=True)
    assert set(s3.local_files(other)) == {"toy/b"}


# -- transfers of rows that change or break ----------------------------------------------------------------------------


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
    ended = [row["trial_id"] for row in records.trials.read_rows() if row["state"] == "COMPLETE"]
    epochs = [(row["trial_id"], row["epoch"]) for row in records.epochs.read_rows()]
    assert ended[:trials] == [f"t{number}" for number in range(trials)]
    assert all((trial, epoch) in epochs for trial in ended for epoch in (1, 2))


ROWS = ("toy/epochs", "toy/trials")


@pytest.mark.parametrize("steps", range(4))
def test_interrupted_push_keeps_all_rows_that_were_on_s3(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Of two files with epochs, the second of which is new, and one with trials."""
    monkeypatch.setattr("study.records.part_file.ROWS_PER_PART", 7)
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
        with suppress(KeyboardInterrupt) if steps < 3 else nullcontext():
            mirror_of(here).push(*ROWS, delete=True)
    assert next(left, None) is None, "these are all steps"
    is_consistent(copy("other"), 4 if steps == 3 else 3)
    mirror_of(here).push(*ROWS, delete=True)
    is_consistent(copy("third"), 4)
    assert {file.name for file in (here / "toy" / "epochs").iterdir()} == {"part-00001.parquet", "part-00002.parquet"}


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


def test_rows_written_between_two_uploads_never_end_a_trial_before_its_epochs(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = copy()
    records, numbers, upload = Records(here / "toy", ["val/accuracy"]), iter(range(100)), Mirror._upload

    def write_and_upload(self: Mirror, file: Any) -> None:
        told(records, next(numbers))
        upload(self, file)

    told(records, next(numbers))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Mirror, "_upload", write_and_upload)
        for number in range(4):
            mirror_of(here).push(*ROWS, delete=True)
            is_consistent(copy(f"other-{number}"), 2 * number + 1)

"""The reason of a failed trial: one line that files and terminals can hold, whatever the error is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.execution.worker import MESSAGE_CHARACTERS, describe_error
from study.execution.worker_context import INHERITED, WorkerContext
from study.trial import Link, Trial


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def describe(error: Exception) -> str:
    with pytest.raises(type(error)) as caught:
        raise error
    return describe_error(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("planted"), "ValueError: planted (test_worker.py:"),
        (ValueError("\n  first\nsecond"), "ValueError:   first (test_worker.py:"),
        (ValueError(), "ValueError:  (test_worker.py:"),
        (FileNotFoundError(2, "No such file", "a\udcff.txt"), "'a\\udcff.txt' (test_worker.py:"),
        (ValueError("\ud800"), "ValueError: \\ud800 (test_worker.py:"),
        (ValueError("\x1b[31mred\0"), "ValueError: \\x1b[31mred\\x00 (test_worker.py:"),
        (MuteError(), "MuteError: <exception str() failed> (test_worker.py:"),
        (ValueError("τ ≥ 0, größer"), "ValueError: τ ≥ 0, größer (test_worker.py:"),
    ],
    ids=range(8),
)
def test_reason_is_a_printable_line_with_its_place(error: Exception, expected: str) -> None:
    reason = describe(error)
    assert expected in reason
    assert reason.isprintable()


def test_reason_of_a_whole_tensor_is_cut() -> None:
    assert "1" * MESSAGE_CHARACTERS + "… (test" in describe(ValueError("1" * 10**6))


def test_traceback_keeps_what_is_no_text(tmp_path: Path) -> None:
    context = WorkerContext(tmp_path, tmp_path)
    context.write_traceback("1", "Error: a\udcff.txt")
    assert (context.checkpoint_folder("1") / "traceback.txt").read_text(encoding="utf-8") == "Error: a\\udcff.txt"


def make_job(context: WorkerContext, parent: str) -> Any:
    trial = Trial("search", "student", "arm", 5, 0, 10, {}, {}, Link(0, 5, 10, parent))
    return SimpleNamespace(trial=trial, checkpoint=context.checkpoint_folder(trial.id), rank=0)


def test_link_inherits_its_parents_checkpoint_once(tmp_path: Path) -> None:
    context = WorkerContext(tmp_path, tmp_path)
    parent, job = context.checkpoint_folder("parent"), make_job(context, "parent")
    (parent / "nets").mkdir(parents=True)
    for name in ("state.pt", "nets/student.pt", "traceback.txt", ".hung-0.txt", INHERITED):
        (parent / name).write_text(f"{name} of the parent")
    context.inherit_checkpoint(job)
    copied = {str(path.relative_to(job.checkpoint)) for path in job.checkpoint.rglob("*") if path.is_file()}
    assert copied == {"state.pt", "nets/student.pt", INHERITED}
    (job.checkpoint / "state.pt").write_text("its own")
    context.inherit_checkpoint(job)  # by its next worker
    assert (job.checkpoint / "state.pt").read_text() == "its own"
    assert not INHERITED.startswith("."), "hidden files do not reach S3"


def test_copy_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    context = WorkerContext(tmp_path, tmp_path)
    parent, job = context.checkpoint_folder("parent"), make_job(context, "parent")
    for folder in (parent, job.checkpoint):
        folder.mkdir(parents=True)
    (parent / "state.pt").write_text("whole")
    (job.checkpoint / "state.pt").write_text("of another attempt")
    context.inherit_checkpoint(job)
    assert (job.checkpoint / "state.pt").read_text() == "whole"


def test_link_whose_parent_left_no_checkpoint_fails(tmp_path: Path) -> None:
    context = WorkerContext(tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match="the checkpoint of its parent gone is gone"):
        context.inherit_checkpoint(make_job(context, "gone"))


def test_traceback_of_a_failed_link_outlives_its_checkpoint(tmp_path: Path) -> None:
    context = WorkerContext(tmp_path, tmp_path)
    context.write_traceback("1", "Error")
    (context.checkpoint_folder("1") / "state.pt").touch()
    context.discard_checkpoint("1", keep_traceback=True)
    assert [path.name for path in context.checkpoint_folder("1").iterdir()] == ["traceback.txt"]
    context.discard_checkpoint("1")
    assert not context.checkpoint_folder("1").exists()

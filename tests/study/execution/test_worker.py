"""The reason of a failed trial: one line that files and terminals can hold, whatever the error is."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.execution.worker import MESSAGE_CHARACTERS, describe_error
from study.execution.worker_context import WorkerContext


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

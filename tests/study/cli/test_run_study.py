"""Errors of a run in one line: a report that cannot be written, a path that cannot be used."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import reports.build
from study.cli import run_study
from study.cli.options import RunOptions, load_with_options
from study.driver import Outcome
from study.errors import InputError
from study.preflight import DriverOptions

SPACE = """
from study import Arm, Budget, Study
from trainables import Simulated, SimulatedLoss, SimulatedStudent
study = Study("toy", "?", Simulated(), (SimulatedStudent(),), (Arm("a", SimulatedLoss(), baseline=True),),
              Budget(1, 2, 3))
"""


def test_report_that_finds_a_full_disk_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(folder: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "report.html"))

    def drive(*_: Any) -> Outcome:
        return Outcome([])

    monkeypatch.setattr(run_study, "drive", drive)
    monkeypatch.setattr(run_study, "acquire_lease", nullcontext)
    monkeypatch.setattr(reports.build, "build", fill_disk)
    (tmp_path / "space.py").write_text(SPACE)
    options = RunOptions(space=tmp_path / "space.py", storage_path=str(tmp_path), quiet=True)
    space, study = load_with_options(options, None)
    with pytest.raises(InputError, match=r"report of .*/toy cannot be written \(No space left .*all rows are written"):
        run_study._train_and_report(options, space, study, {}, DriverOptions(tmp_path))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP])
def test_path_that_cannot_be_used_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number), "/home/somebody/space.py")

    monkeypatch.setattr(run_study, "resolve_space", fail)
    with pytest.raises(SystemExit) as ended:
        run_study.run_and_exit(RunOptions(space=Path("space.py")))
    assert ended.value.code == 2
    expected = f"error: /home/somebody/space.py cannot be used ({os.strerror(number)}): give another path, or change"
    assert capsys.readouterr().err.startswith(expected)


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(run_study, "resolve_space", fail)
    with pytest.raises(OSError, match="Bad file"):
        run_study.run_and_exit(RunOptions(space=Path("space.py")))

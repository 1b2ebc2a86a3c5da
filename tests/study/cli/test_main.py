"""Completion, help and stop; and all commands once on a real study, from run to resume."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from click.shell_completion import ShellComplete

from study.cli.main import main
from study.cli.status import read_status
from study.records.lock import is_stop_requested, lock_study
from tests.study.cli.studies import SPACE, called, written
from tests.study.folder import Folder, is_whole, start, wait_for


def complete(*words: str) -> list[str]:
    """Return what a shell offers for the last word."""
    found = ShellComplete(main, {}, "kdstudy", "_KDSTUDY_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_shells_complete_commands_options_and_names_of_studies(tmp_path: Path) -> None:
    for name in ("toy", "toy-2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
    (tmp_path / "toys").mkdir()
    assert complete("sh") == ["show"]
    assert complete("show", "--wa") == ["--watch"]
    assert complete("ui", "--r") == ["--read-only"]  # the options of a command that is imported late
    assert complete("export", "") == ["best"]  # a group
    assert complete("export", "--h") == ["--help"]
    assert complete("export", "best", "--cell", "a", "--sp") == ["--space"]
    assert complete("show", "--storage-path", str(tmp_path), "to") == ["toy", "toy-2"]
    assert complete("stop", "--storage-path", str(tmp_path), "*") == []


def test_stop_of_what_does_not_run_says_so_and_asks_nobody(runs: Path) -> None:
    folder = written(runs, 20)
    said = called("stop", folder)
    assert said.exit_code == 0
    assert said.stdout == f"toy does not run; continue with: python -m study resume {folder}\n"
    assert not is_stop_requested(folder)


def test_stop_waits_until_the_lock_is_free(runs: Path) -> None:
    folder = written(runs, 20)
    with ExitStack() as stack:
        stack.enter_context(lock_study(folder))
        too_long = called("stop", folder, "--wait", "0.3")
        assert too_long.exit_code == 1
        assert "still runs it after 0.3 s" in too_long.stderr
        assert is_stop_requested(folder)
        threading.Timer(0.5, stack.pop_all().close).start()
        said = called("stop", folder)
    assert said.exit_code == 0
    assert said.stdout.startswith("toy stopped after ")


@pytest.mark.slow
def test_real_study_is_run_shown_stopped_not_continued_over_a_cap_and_resumed_with_more_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder(tmp_path)
    folder.space.write_text(SPACE)
    process = start([sys.executable, "-m", "study", "run", "toy.py", "--max-concurrent", "2"])
    wait_for(lambda: (folder.study / "study.json").is_file() and read_status(folder.study).used.epochs > 2, process)
    seen = read_status(folder.study)
    assert (seen.state, seen.by) == ("running", f"{os.uname().nodename}:{process.pid}")
    assert len(seen.running) in (1, 2)

    stop_and_check(folder, process)
    before = folder.trials()
    capped = called("resume", "toy", "--wall-hours", "0.0001")
    assert capped.exit_code == 3, capped.stderr
    assert "wall_hours 0.0001 used up" in capped.stderr
    pd.testing.assert_frame_equal(folder.trials(), before)

    resumed = called("resume", "toy", "--trials", "4", "--wall-hours", "9")
    assert resumed.exit_code == 0, resumed.stderr
    after = read_status(folder.study)
    assert after.state == "finished"
    assert after.command == "python -m study.run toy.py --trials 4 --wall-hours 9 --max-concurrent 2"
    assert after.cells[1].searched == 4
    is_whole(folder, searched=4, confirmed=4)


def stop_and_check(folder: Folder, process: subprocess.Popen[str]) -> None:
    """Stop a study that another process runs; it ends soon, and all its rows are written."""
    asked = time.monotonic()
    stopped = called("stop", folder.study)
    assert stopped.exit_code == 0, stopped.stderr
    assert stopped.stdout.endswith("continue with: python -m study resume toy\n")
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - asked < 20  # a few seconds on an idle machine, most of them Ray's
    assert process.returncode == 3
    assert "stopped on request" in stderr
    assert "INTERRUPTED" in set(folder.trials().state)


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "run", "list", "show", "resume", "stop", "doctor"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_examples(command: str, option: str) -> None:
    said = called(*([command] if command else []), option)
    assert said.exit_code == 0
    assert "Examples:\n" in said.stdout
    assert f"python -m study{'.run' if command == 'run' else ''}" in said.stdout.split("Examples:")[1]

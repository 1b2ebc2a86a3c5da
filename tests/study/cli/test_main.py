"""Completion, help and stop; and all commands once on a real study, from run to resume."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from study.cli.main import main
from study.cli.status import read_status
from study.records.lock import is_stop_requested, lock_study
from tests.study.cli.studies import SPACE, called, written

Shell = Callable[..., subprocess.CompletedProcess[str]]


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


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.1)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "study", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.slow
def test_real_study_is_run_shown_stopped_and_resumed_with_more_trials(tmp_path: Path, runs: Path, shell: Shell) -> None:
    (tmp_path / "toy.py").write_text(SPACE)
    words = [sys.executable, "-m", "study", "run", "toy.py", "--max-concurrent", "2"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: (runs / "toy" / "study.json").is_file() and read_status(runs / "toy").used.epochs > 2)
    seen = read_status(runs / "toy")
    assert (seen.state, seen.by) == ("running", f"{os.uname().nodename}:{process.pid}")
    assert len(seen.running) in (1, 2)

    stopped = called("stop", runs / "toy")
    assert stopped.exit_code == 0, stopped.stderr
    assert f"continue with: python -m study resume {runs / 'toy'}" in stopped.stdout
    process.communicate(timeout=30)
    assert process.returncode not in (0, 1, 2)

    resumed = shell("resume", "toy", "--trials", "4")
    assert resumed.returncode == 0, resumed.stderr
    after = read_status(runs / "toy")
    assert after.state == "finished"
    assert after.command == "python -m study.run toy.py --trials 4 --max-concurrent 2"
    assert after.cells[1].searched == 4


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "run", "list", "show", "resume", "stop", "doctor"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_examples(command: str, option: str) -> None:
    said = called(*([command] if command else []), option)
    assert said.exit_code == 0
    assert "Examples:\n" in said.stdout
    assert f"python -m study{'.run' if command == 'run' else ''}" in said.stdout.split("Examples:")[1]

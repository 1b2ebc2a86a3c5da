"""resume: on studies driven without Ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.cli.resume import build_command_words, check_space
from study.errors import InputError
from study.records.lock import lock_study
from study.records.progress import read_shown_study
from tests.study.cli.studies import SPACE, called, written


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["toy.py", "--trials", "9", "--max-concurrent", "2"]),
        (["--trials", "40"], ["toy.py", "--trials", "40", "--max-concurrent", "2"]),
        (["--trials=40"], ["toy.py", "--trials", "40", "--max-concurrent", "2"]),
        (["--retry-failed"], ["toy.py", "--trials", "9", "--max-concurrent", "2", "--retry-failed"]),
        (["--teacher-store", "off"], ["toy.py", "--trials", "9", "--max-concurrent", "2", "--teacher-store", "off"]),
    ],
)
def test_resume_puts_new_options_in_the_place_of_recorded_ones(
    runs: Path, more: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    folder = written(runs, 20)
    assert build_command_words(folder, read_shown_study(folder), more) == words


@pytest.mark.parametrize(
    ("more", "logs"),
    [([], ["--log", "tensorboard", "--log", "wandb"]), (["--log", "mlflow"], ["--log", "mlflow"])],
)
def test_resume_keeps_a_repeated_option_until_it_is_given_anew(
    runs: Path, more: list[str], logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    command = "python -m study.run toy.py --log tensorboard -v --log wandb"
    folder = written(runs, 20, command=command)
    assert build_command_words(folder, read_shown_study(folder), more) == [
        "toy.py",
        *logs,
        "--verbose",
    ]


def test_resume_of_a_study_that_was_moved_stays_where_it_is(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    folder = written(runs.parent / "archive", 20)
    assert build_command_words(folder, read_shown_study(folder), [])[-2:] == [
        "--storage-path",
        str(folder.parent),
    ]


def test_resume_takes_relative_paths_from_where_the_study_was_started(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, started = tmp_path / "elsewhere", tmp_path / "started"
    elsewhere.mkdir()
    started.mkdir()
    folder = written(started / "runs", 20, cwd=str(started))
    monkeypatch.chdir(elsewhere)
    words = build_command_words(folder, read_shown_study(folder), ["--data-dir", "data"])
    assert words[0] == str(started / "toy.py")
    assert words[-2:] == ["--data-dir", str(elsewhere / "data")]
    assert "--storage-path" not in words


@pytest.mark.parametrize("option", [["--fresh"], ["--name", "other"], ["other.py"]])
def test_resume_refuses_what_would_be_another_study(runs: Path, option: list[str]) -> None:
    refused = called("resume", written(runs, 20), *option)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "does not go with resume" in refused.stderr


def test_resume_of_a_renamed_folder_says_what_it_was_called(runs: Path) -> None:
    folder = written(runs, 20).rename(runs / "renamed")
    assert "holds the study 'toy'" in called("resume", folder).stderr


def test_space_file_gone_changed_or_only_commented(runs: Path, tmp_path: Path) -> None:
    folder, path = written(runs, 20), tmp_path / "toy.py"
    with pytest.raises(InputError, match=rf"is gone: write it back with: .*show {folder} --space > {path}"):
        check_space(folder, read_shown_study(folder), path)
    path.write_text(SPACE.replace("trials=3", "trials=5"))
    with pytest.raises(InputError, match=r"first in line 13: .*trials=3.* → .*trials=5.*--space"):
        check_space(folder, read_shown_study(folder), path)
    path.write_text(SPACE.replace("# a study", "# the study"))
    check_space(folder, read_shown_study(folder), path)


def test_resume_of_a_running_study_says_who_runs_it(runs: Path) -> None:
    folder = written(runs, 20)
    with lock_study(folder):
        refused = called("resume", folder)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert f"is being run already, by {os.uname().nodename}:{os.getpid()}" in refused.stderr

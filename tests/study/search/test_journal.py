"""The Optuna journal of a search: what Optuna and its dashboard read of it."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from study.errors import InputError
from study.search.journal import create_journal


def test_enqueued_trials_are_proposed_once_each_in_their_searches_in_order(tmp_path: Path) -> None:
    journal = create_journal(tmp_path / "journal.log")
    searches = [optuna.create_study(study_name=name, storage=journal) for name in ("a", "b")]
    for value in (0.1, 0.2):
        for sign, search in zip((1, -1), searches, strict=True):
            search.enqueue_trial({"x": sign * value})
    for sign, search in zip((1, -1), searches, strict=True):
        waiting = search.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        assert [trial.number for trial in waiting] == [0, 1]
        assert [search.ask().suggest_float("x", -1, 1) for _ in range(2)] == [sign * 0.1, sign * 0.2]
        assert search.ask().number == 2, "a trial of its own"
        assert not search.get_trials(states=(TrialState.WAITING,))


def test_another_process_reads_what_was_written(tmp_path: Path) -> None:
    search = optuna.create_study(study_name="a", storage=create_journal(tmp_path / "journal.log"))
    search.enqueue_trial({"x": 0.5})
    trial = search.ask()
    search.tell(trial, trial.suggest_float("x", 0, 1))
    read = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    (stored,) = optuna.load_study(study_name="a", storage=read).trials
    assert (stored.params, stored.value) == ({"x": 0.5}, 0.5)


def test_full_disk_is_one_line_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.log"
    search = optuna.create_study(study_name="a", storage=create_journal(path))
    before = path.read_bytes()

    class FullFile(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda self, *_, **__: FullFile(self, "a"))
        with pytest.raises(InputError, match=r"journal\.log cannot be written \(No space left .*free disk space"):
            search.ask()
    assert path.read_bytes() == before


def test_journal_is_empty_at_each_start(tmp_path: Path) -> None:
    optuna.create_study(study_name="a", storage=create_journal(tmp_path / "journal.log"))
    assert not create_journal(tmp_path / "journal.log").get_all_studies()

"""The Optuna journal in a study's folder: for optuna-dashboard only, rewritten from the rows at each start."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from study.errors import InputError


def create_journal(path: Path) -> JournalStorage:
    """Create an empty journal at `path`, in place of an earlier one and its lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (path, path.with_name(path.name + ".lock")):
        leftover.unlink(missing_ok=True)
    return _OwnJournal(_OwnFile(path))


class _OwnFile(BaseJournalBackend):
    """Optuna's file of a journal, a line of JSON for each log, written by one process that never reads it.

    Raises InputError if it cannot be written.

    Optuna's own backend locks, syncs and reads the file for each log, some 20 times a trial.
    """

    def __init__(self, path: Path):
        self._path = path
        self._unread: deque[str] = deque()

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as file:
                file.write("".join(lines).encode())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, size)  # half a line would make all others unreadable
            raise InputError(
                f"{self._path} cannot be written ({error.strerror}): free disk space, then run the same command again"
            ) from None
        self._unread.extend(lines)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the logs since the last call, each of which the storage reads once and in order."""
        while self._unread:
            yield json.loads(self._unread.popleft())


class _OwnJournal(JournalStorage):
    """A journal that no other process writes, and that therefore knows which trials wait.

    `Study.ask` looks for enqueued trials before each proposal, which otherwise reads all trials of the search.
    """

    def __init__(self, backend: _OwnFile):
        super().__init__(backend)
        self._waiting: dict[int, list[int]] = {}

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None and template_trial.state is TrialState.WAITING:
            self._waiting.setdefault(study_id, []).append(trial_id)
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states != (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        trials = {trial_id: self.get_trial(trial_id) for trial_id in self._waiting.get(study_id, ())}
        self._waiting[study_id] = [i for i, trial in trials.items() if trial.state is TrialState.WAITING]
        return [trials[trial_id] for trial_id in self._waiting[study_id]]

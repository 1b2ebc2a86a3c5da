"""The Optuna journal in a study's folder: for optuna-dashboard only, rewritten from the rows at each start."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState


def create_journal(path: Path) -> JournalStorage:
    """Create an empty journal at `path`, in place of an earlier one and its lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (path, path.with_name(path.name + ".lock")):
        leftover.unlink(missing_ok=True)
    return _OwnJournal(JournalFileBackend(str(path)))


class _OwnJournal(JournalStorage):
    """A journal that no other process writes, and that therefore knows which trials wait.

    `Study.ask` looks for enqueued trials before each proposal, which otherwise reads all trials of the search.
    """

    def __init__(self, backend: JournalFileBackend):
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

"""The Optuna journal in a study's folder: for optuna-dashboard only, rewritten from the rows at each start."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def create_journal(path: Path) -> JournalStorage:
    """Create an empty journal at `path`, in place of an earlier one and its lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (path, path.with_name(path.name + ".lock")):
        leftover.unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))

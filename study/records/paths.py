"""Names of the files and folders of a study; docs/records.md explains what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STUDY_JSON = "study.json"
TRIALS = "trials"
EPOCHS = "epochs"
CHECKPOINTS = "checkpoints"
TRACEBACK = "traceback.txt"
REPORT = "report.html"
TABLES = "tables"
FIGURES = "figures"
EXPORT = "export"
EXPORT_JSON = "export.json"
STOP_REQUEST = "stop"
SKIP_REQUESTS = "skip"
REMOTE_SKIPS = ".skip"
"""Folder on S3 with an object for each trial to skip, so that no machine overwrites another's request."""

DEFAULT_STORAGE = "runs"
"""The storage path of commands without --storage-path."""


@dataclass(frozen=True)
class StudyPaths:
    """The paths within a study's folder."""

    folder: Path

    @property
    def study_json(self) -> Path:
        return self.folder / STUDY_JSON

    @property
    def trials(self) -> Path:
        return self.folder / TRIALS

    @property
    def epochs(self) -> Path:
        return self.folder / EPOCHS

    @property
    def journal(self) -> Path:
        """Optuna's journal of the searches, made again by each run from the rows."""
        return self.folder / "optuna.journal"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    @property
    def stop_request(self) -> Path:
        return self.folder / STOP_REQUEST

    @property
    def skip_requests(self) -> Path:
        """The ids of search trials to end by hand, one a line."""
        return self.folder / SKIP_REQUESTS

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    @property
    def tables(self) -> Path:
        return self.folder / TABLES

    @property
    def figures(self) -> Path:
        return self.folder / FIGURES

    @property
    def export(self) -> Path:
        """The folder of exported students, one folder each."""
        return self.folder / EXPORT

    def checkpoint(self, trial_id: str) -> Path:
        """Return the folder of a trial's checkpoint and of what else its workers write."""
        return self.folder / CHECKPOINTS / trial_id

    def traceback(self, trial_id: str) -> Path:
        return self.checkpoint(trial_id) / TRACEBACK

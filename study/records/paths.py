"""Names of the files and folders of a study; docs/records.md explains what they hold."""

from __future__ import annotations

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


class StudyPaths:
    """The paths within a study's folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.study_json = folder / STUDY_JSON
        self.trials = folder / TRIALS
        self.epochs = folder / EPOCHS
        self.journal = folder / "optuna.journal"
        """Optuna's journal of the searches, made again by each run from the rows."""
        self.lock = folder / ".lock"
        self.stop_request = folder / STOP_REQUEST
        self.skip_requests = folder / SKIP_REQUESTS
        """The ids of search trials to end by hand, one a line."""
        self.report = folder / REPORT
        self.tables = folder / TABLES
        self.figures = folder / FIGURES
        self.export = folder / EXPORT
        """The folder of exported students, one folder each."""

    def checkpoint(self, trial_id: str) -> Path:
        """Return the folder of a trial's checkpoint and of what else its workers write."""
        return self.folder / CHECKPOINTS / trial_id

    def traceback(self, trial_id: str) -> Path:
        return self.checkpoint(trial_id) / TRACEBACK

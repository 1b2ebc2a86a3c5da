"""The TensorBoard tracker. Its package is imported when the tracker is opened."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from study.trackers.base import flatten_result
from study.trial import EpochResult, Trial, TrialState

MAX_NAME_BYTES = 200
"""Longest name of a folder; file systems allow 255 bytes, some fewer."""


class TensorBoard:
    """A folder of events per trial, which gets its parameters for the HParams tab at the end."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        self._folder, self._new_writer = folder / "tensorboard", SummaryWriter
        self._writers: dict[str, Any] = {}

    def log_epoch(self, trial: Trial, row: EpochResult) -> None:
        writer = self._open_writer(trial, row["epoch"])
        for name, value in flatten_result(row).items():
            writer.add_scalar(name, value, row["epoch"])

    def finish_trial(self, trial: Trial, state: TrialState, reason: str) -> None:
        from tensorboardX.summary import hparams

        writer = self._open_writer(trial, None)
        # without hparams()' first summary, which would limit the tab's columns to the first trial's parameters
        _, start, end = hparams({"cell": trial.cell, "phase": trial.phase, "seed": str(trial.seed), **trial.params}, {})
        writer.file_writer.add_summary(start)
        writer.file_writer.add_summary(end)
        writer.add_text("state", f"{state} {reason}".strip())
        self._writers.pop(trial.id).close()

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _open_writer(self, trial: Trial, epoch: int | None) -> Any:
        if trial.id not in self._writers:
            # includes the id: an extended search may confirm another configuration under the same number
            names = (*filter(None, (trial.student, trial.arm)), f"{trial.phase}-{trial.number}-{trial.id}")
            self._writers[trial.id] = self._new_writer(
                str(self._folder.joinpath(*map(_folder_name, names))),
                purge_step=epoch,  # replaces what an earlier run logged from this epoch on
                filename_suffix=f".{epoch or 0}",  # keeps runs started within the same second in separate files
                flush_secs=2,
            )
        return self._writers[trial.id]


def _folder_name(name: str) -> str:
    """Return a name escaped for use as a single folder's name; distinct names stay distinct, also long ones."""
    escaped = re.sub(r"[^\w +,.()-]|^\.", lambda found: f"%{ord(found[0]):02X}", name)
    if len(escaped.encode()) <= MAX_NAME_BYTES:
        return escaped
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{escaped.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}-{digest}"

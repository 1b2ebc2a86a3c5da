"""Transfers between a worker and a storage on S3: before a trial's first epoch and after each step.

A trial's checkpoint is on S3 before its rows are reported, so that the next worker on any node continues from it.
All functions do nothing for a storage that is a folder.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from study.records.paths import STUDY_JSON
from study.storage.locations import mirror_of
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError
from study.storage.verified_copy import DamagedCopyError, pull_verified
from study.task import Task
from study.trial import TrialContext

RETRY_SECONDS = 120.0
MAX_PAUSE_SECONDS = 16.0

FETCHED = ".fetched"
"""File in a preparation's checkpoint: the artifacts that existed before it, and when they were written."""

FORGOTTEN = ".forgotten"
"""Folder in a study's folder: one file per trial whose checkpoint on S3 is to be deleted. Its name is the trial's id
and, after KEEPING, that of a file of the checkpoint that stays."""
KEEPING = "+"

PARENT = ".parent-{rank}"
"""Folder in a link's checkpoint: a worker's copy of the parent's. Hidden, so that it does not reach S3."""


def fetch_artifacts(storage: Path, task: Task) -> None:
    """Copy teachers and their outputs to the driver. Raises StorageError if the storage does not answer."""
    mirror_of(storage).pull(*task.list_artifacts())


def fetch_study_names(storage: Path) -> None:
    """Copy each study's study.json to the driver. Raises StorageError if the storage does not answer."""
    mirror = mirror_of(storage)
    if mirror.uri:
        mirror.pull(*(f"{name}/{STUDY_JSON}" for name in mirror.list_folders()))


def fetch_trial_files(mirror: Mirror, context: TrialContext) -> None:
    """Copy the trial's last checkpoint, and the artifacts of its task, to this node.

    Raises StorageError if the storage does not answer within RETRY_SECONDS.
    """
    if not mirror.uri:
        return
    artifacts = context.task.list_artifacts()
    retry_with_backoff(partial(mirror.pull, _path_below(mirror, context.checkpoint), delete=True))
    if context.trial.phase == "prepare":
        retry_with_backoff(lambda: mirror.pull(*artifacts))
        context.checkpoint.mkdir(parents=True, exist_ok=True)
        (context.checkpoint / FETCHED).write_text(json.dumps(_write_times(mirror, artifacts)))
    elif context.loss.needs_teacher:
        retry_with_backoff(lambda: pull_verified(mirror, artifacts, context.task.is_intact))


def fetch_parent_checkpoint(mirror: Mirror, context: TrialContext, parent: str) -> Path:
    """Return the folder of a parent's checkpoint: the study's own or, of a storage on S3, a copy for this worker alone.

    A copy that several links of a node shared would be deleted by the first of them that is done with it, or by the
    worker that trained the parent. Raises StorageError if the storage does not answer within RETRY_SECONDS.
    """
    source = context.checkpoint.with_name(parent)
    if not mirror.uri:
        return source
    own = replace(mirror, folder=_own_copy(context))
    retry_with_backoff(partial(own.pull, _path_below(mirror, source), delete=True))
    return own.folder / source.relative_to(mirror.folder)


def push_inherited(mirror: Mirror, context: TrialContext, marker: Path) -> None:
    """Copy to S3 what a link has inherited, and delete this worker's copy of the parent's checkpoint.

    The file that marks the copy as complete arrives last, and before any epoch. Of several workers only rank 0 writes.
    Raises StorageError if the storage does not answer within RETRY_SECONDS.
    """
    if not mirror.uri:
        return
    if context.rank == 0:
        files = mirror.list_files(_path_below(mirror, context.checkpoint))
        paths = [_path_below(mirror, path) for path in (*(path for path in files if path != marker), marker)]
        retry_with_backoff(lambda: mirror.push(*paths))
    shutil.rmtree(_own_copy(context), ignore_errors=True)


def _own_copy(context: TrialContext) -> Path:
    return context.checkpoint / PARENT.format(rank=context.rank)


def push_checkpoint(mirror: Mirror, context: TrialContext, complete: bool) -> None:
    """Copy the trial's checkpoint to S3; of a `complete` preparation also its artifacts, replacing old ones.

    Of several workers only rank 0 writes. Raises StorageError if the storage does not answer within RETRY_SECONDS.
    """
    if mirror.uri and context.rank == 0:
        artifacts = context.task.list_artifacts() if complete and context.trial.phase == "prepare" else ()
        for path in _find_replaced(mirror, context.checkpoint, artifacts):
            retry_with_backoff(partial(mirror.delete_object, path))  # otherwise the pull below would restore it
        # artifacts that another study has made meanwhile stay: its trials may be using them
        retry_with_backoff(lambda: mirror.pull(*artifacts))
        retry_with_backoff(lambda: mirror.push(_path_below(mirror, context.checkpoint), *artifacts))


def _write_times(mirror: Mirror, paths: Sequence[str]) -> dict[str, int]:
    """Return when each local file was last written, in ns, by its path below the storage."""
    files = [file for path in paths for file in mirror.list_files(path)]
    return {str(file.relative_to(mirror.folder)): file.stat().st_mtime_ns for file in files}


def _find_replaced(mirror: Mirror, checkpoint: Path, artifacts: Sequence[str]) -> list[str]:
    """Return the artifacts that were fetched for a preparation and that it has deleted or written again."""
    if not artifacts:
        return []
    fetched, now = json.loads((checkpoint / FETCHED).read_text()), _write_times(mirror, artifacts)
    return [path for path, written in fetched.items() if now.get(path) != written]


def drop_local_copy(mirror: Mirror, checkpoint: Path | None) -> None:
    """Delete this node's copy of a checkpoint that is on S3."""
    if mirror.uri and checkpoint is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)


def push_traceback(mirror: Mirror, traceback: Path) -> None:
    """Copy a traceback to S3, if the storage answers."""
    with suppress(StorageError):
        mirror.push(_path_below(mirror, traceback))


def mark_for_deletion(mirror: Mirror, checkpoint: Path, keep: str = "") -> None:
    """Let the driver's SyncThread delete a checkpoint on S3, but for the file `keep`.

    It does so once the trial's end is on record there.
    """
    if mirror.uri:
        name = f"{checkpoint.name}{KEEPING}{keep}" if keep else checkpoint.name
        mark = checkpoint.parent.parent / FORGOTTEN / name
        mark.parent.mkdir(exist_ok=True)
        mark.touch()


def delete_checkpoint(mirror: Mirror, checkpoint: Path) -> None:
    """Delete a checkpoint on S3 now. Raises StorageError if the storage does not answer within RETRY_SECONDS."""
    retry_with_backoff(lambda: mirror.delete_folder(_path_below(mirror, checkpoint)))


def _path_below(mirror: Mirror, path: Path) -> str:
    return str(path.relative_to(mirror.folder)) if mirror.uri else ""


def retry_with_backoff(transfer: Callable[[], None]) -> None:
    """Call `transfer` until it succeeds; after RETRY_SECONDS raise its StorageError. A damaged copy is not retried."""
    deadline, pause = time.monotonic() + RETRY_SECONDS, 1.0
    while True:
        try:
            return transfer()
        except DamagedCopyError:
            raise
        except StorageError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_SECONDS)

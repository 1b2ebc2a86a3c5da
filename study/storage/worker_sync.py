"""What a worker fetches before a trial's first epoch and leaves after each step, where the storage lies on S3.

A trial's checkpoint is there before its rows are told, so that the next worker, on whichever node, goes on from it.
Where the storage is a folder, nothing is done.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from study.storage.locations import mirror_of
from study.storage.mirror import DamagedCopyError, Mirror, StorageError
from study.task import Task
from study.trial import TrialContext

PATIENCE_SECONDS, LONGEST_PAUSE_SECONDS = 120.0, 16.0

FETCHED = ".fetched"
"""In the checkpoint of a preparation: what was there of what it makes, before it made it."""

FORGOTTEN = ".forgotten"
"""In a study's folder: the trials whose checkpoints are to be removed there, a file each."""


def fetch_artifacts(storage: Path, task: Task) -> None:
    """Let the driver see what is there of teachers and their outputs. Raises StorageError if nobody answers."""
    mirror = mirror_of(storage)
    if mirror.uri:
        mirror.pull(*task.list_artifacts())


def fetch_names(storage: Path) -> None:
    """Let the driver see which studies there are."""
    mirror = mirror_of(storage)
    if mirror.uri:
        mirror.pull(*(f"{name}/study.json" for name in mirror.names()))


def fetch(mirror: Mirror, job: TrialContext) -> None:
    """Let this node have the trial's checkpoint as it was last left, and what its task shares with all trials.

    Raises StorageError if the storage does not answer, however often it is asked.
    """
    if not mirror.uri:
        return
    retry_with_backoff(lambda: mirror.pull(_place(mirror, job.checkpoint), sweep=True))
    if job.trial.phase == "prepare":
        retry_with_backoff(lambda: mirror.pull(*job.task.list_artifacts()))
        job.checkpoint.mkdir(parents=True, exist_ok=True)
        (job.checkpoint / FETCHED).write_text(json.dumps(_times(mirror, job.task.list_artifacts())))
    elif job.loss.needs_teacher:
        retry_with_backoff(lambda: mirror.fetch(job.task.list_artifacts(), job.task.is_intact))


def push_checkpoint(mirror: Mirror, job: TrialContext, whole: bool) -> None:
    """Keep the trial's checkpoint there; of a preparation that is `whole` also what it has made, and no more what it
    has removed or made again.

    Of several workers the first alone writes. Raises StorageError as above.
    """
    if mirror.uri and job.rank == 0:
        made = job.task.list_artifacts() if whole and job.trial.phase == "prepare" else ()
        for place in _replaced(mirror, job.checkpoint, made):
            retry_with_backoff(partial(mirror.discard, place))  # else it would come back
        retry_with_backoff(
            lambda: mirror.pull(*made)
        )  # what another study has made meanwhile stays: its trials may be using it
        retry_with_backoff(lambda: mirror.push(_place(mirror, job.checkpoint), *made))


def _times(mirror: Mirror, places: Sequence[str]) -> dict[str, int]:
    """When each file here was last written."""
    paths = [path for place in places for path in mirror.files(place)]
    return {str(path.relative_to(mirror.here)): path.stat().st_mtime_ns for path in paths}


def _replaced(mirror: Mirror, checkpoint: Path, made: Sequence[str]) -> list[str]:
    """What was fetched for a preparation, and is not here any more as it was."""
    if not made:
        return []
    fetched, now = json.loads((checkpoint / FETCHED).read_text()), _times(mirror, made)
    return [place for place, time in fetched.items() if now.get(place) != time]


def drop_local_copy(mirror: Mirror, checkpoint: Path | None) -> None:
    """Remove this node's copy of a checkpoint that is kept there."""
    if mirror.uri and checkpoint is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)


def push_traceback(mirror: Mirror, traceback: Path) -> None:
    """Keep a traceback there, if that can be done."""
    with suppress(StorageError):
        mirror.push(_place(mirror, traceback))


def forget(mirror: Mirror, checkpoint: Path) -> None:
    """Let the driver's thread remove a checkpoint there, once it is on record there that the trial has ended."""
    if mirror.uri:
        mark = checkpoint.parent.parent / FORGOTTEN / checkpoint.name
        mark.parent.mkdir(exist_ok=True)
        mark.touch()


def clear(mirror: Mirror, checkpoint: Path) -> None:
    """Remove a checkpoint there now. Raises StorageError if the storage does not answer."""
    retry_with_backoff(lambda: mirror.remove(_place(mirror, checkpoint)))


def _place(mirror: Mirror, folder: Path) -> str:
    return str(folder.relative_to(mirror.here)) if mirror.uri else ""


def retry_with_backoff(move: Callable[[], None]) -> None:
    """Do it, again and again while the storage does not answer, up to a point."""
    until, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
    while True:
        try:
            return move()
        except DamagedCopyError:
            raise
        except StorageError:
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

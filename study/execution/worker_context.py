"""Files of a worker: where trials of a study keep what outlives a process, and how it reaches this node."""

from __future__ import annotations

import fcntl
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from study.atomic import atomic_write
from study.cluster.software_check import INSTALL_ADVICE, describe_differences, read_needed_versions
from study.cluster.storage_check import UNREADABLE, not_shared_message
from study.records.paths import TRACEBACK, StudyPaths
from study.storage import worker_sync
from study.storage.dataset import RemoteDataset
from study.storage.mirror import NO_MIRROR, Mirror
from study.trial import TrialContext

INHERITED = "inherited.txt"
"""File in the folder of a link of a chain, with its parent's id: its checkpoint is copied. Not hidden, to reach S3."""


@dataclass(frozen=True)
class WorkerContext:
    """The study's folders, and what every node must have to run its trials."""

    study_folder: Path
    storage: Path
    mirror: Mirror = NO_MIRROR
    """Copies files to and from a storage on S3; NO_MIRROR for a storage that is a folder."""
    data: RemoteDataset | None = None
    """The data set, if it lies on S3."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Versions on the driver, which all nodes of a cluster must match; empty for a run on one machine."""

    def find_problem(self) -> str:
        """Return why this node cannot run trials, e.g. one that joined after the start; empty if it can."""
        if not self.software:
            return ""
        if difference := describe_differences(read_needed_versions(), self.software):
            return f"{platform.node()} {difference}: {INSTALL_ADVICE}"
        shared = self.mirror.uri or StudyPaths(self.study_folder).study_json.is_file()
        return "" if shared else not_shared_message(self.storage, {platform.node(): UNREADABLE})

    def checkpoint_folder(self, trial_id: str) -> Path:
        return StudyPaths(self.study_folder).checkpoint(trial_id)

    def fetch_files(self, context: TrialContext) -> None:
        """Bring the data set, the trial's checkpoint and its teacher to this node.

        Raises StorageError if the storage does not answer.
        """
        if self.data is not None:
            worker_sync.retry_with_backoff(self.data.fetch)
        worker_sync.fetch_trial_files(self.mirror, context)

    def write_traceback(self, trial_id: str, text: str) -> None:
        """Write the traceback of a failed trial into its checkpoint folder."""
        path = self.checkpoint_folder(trial_id) / TRACEBACK
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        worker_sync.push_traceback(self.mirror, path)

    @contextmanager
    def exclude_other_ranks(self, context: TrialContext) -> Iterator[None]:
        """Let the ranks of one node fetch and inherit a link's checkpoint on S3 in turn: they share its local copy."""
        if not (self.mirror.uri and context.trial.link):
            yield
            return
        context.checkpoint.mkdir(parents=True, exist_ok=True)
        with (context.checkpoint / ".ranks").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            yield

    def inherit_checkpoint(self, context: TrialContext) -> None:
        """Copy the checkpoint of a link's parent into the link's own folder, unless an earlier attempt has.

        Raises FileNotFoundError if the parent has left no checkpoint, and StorageError if the storage does not answer.
        """
        parent = context.trial.link.parent if context.trial.link else ""
        # each rank for itself where they may have no folder in common
        waits, marker = context.rank > 0 and not self.mirror.uri, context.checkpoint / INHERITED
        if not parent or waits or marker.is_file():
            return
        source = worker_sync.fetch_parent_checkpoint(self.mirror, context, parent)
        # no hidden file either: stacks of processes that hung
        files = [path for path in source.rglob("*") if path.is_file() and path.name[0] != "."]
        files = [path for path in files if path.name not in (TRACEBACK, INHERITED)]
        if not files:
            raise FileNotFoundError(f"the checkpoint of its parent {parent} is gone: {source}")
        for path in files:
            target = context.checkpoint / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as temporary:
                shutil.copyfile(path, temporary)
        marker.write_text(parent)  # last: a copy that was cut short is made again
        worker_sync.push_inherited(self.mirror, context, marker)

    def discard_checkpoint(self, trial_id: str, keep_traceback: bool = False) -> None:
        """Delete the checkpoint of an ended trial; on S3 only once the trial's end is on record there.

        A traceback to keep may be on S3 alone, if another node wrote it.
        """
        folder = self.checkpoint_folder(trial_id)
        traceback = folder / TRACEBACK
        text = traceback.read_bytes() if keep_traceback and traceback.is_file() else b""
        shutil.rmtree(folder, ignore_errors=True)
        if text:
            folder.mkdir(parents=True)
            traceback.write_bytes(text)
        worker_sync.mark_for_deletion(self.mirror, folder, TRACEBACK if keep_traceback else "")

    def reset_checkpoint(self, trial_id: str) -> None:
        """Delete the checkpoint of a trial that starts over. Raises StorageError if the storage does not answer."""
        shutil.rmtree(self.checkpoint_folder(trial_id), ignore_errors=True)
        worker_sync.delete_checkpoint(self.mirror, self.checkpoint_folder(trial_id))

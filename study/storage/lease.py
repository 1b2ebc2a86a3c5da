"""The lease of a study on S3: makes one driver its only writer, and a thread that copies the driver's files to S3.

A lease is an object that its driver rewrites every RENEW_SECONDS and that expires after STALE_SECONDS. It names the
copy that has progressed furthest: a driver that finds its own copy named continues from it, with rows that may never
have reached S3; any other driver starts by copying the study from S3. The driver never waits for the network; whatever
SyncThread learns there reaches it as a stop request. Studies in a folder use a file lock instead (records/lock.py).

Two drivers that start at the same moment are distinguished by reading the lease again after SETTLE_SECONDS, and not by
conditional writes (If-None-Match, If-Match): pyarrow's S3FileSystem has none, and S3-compatible servers of before 2024
ignore them without an error.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from study.errors import InputError
from study.records.lock import read_skip_requests, request_skip, request_stop
from study.records.paths import CHECKPOINTS, EPOCHS, REMOTE_SKIPS, SKIP_REQUESTS, STOP_REQUEST, STUDY_JSON, TRIALS
from study.storage.local_copy import pull_study, read_copy_id, wait_for_lock, write_copy_id
from study.storage.locations import display_path, mirror_of
from study.storage.mirror import Mirror
from study.storage.s3 import StorageError
from study.storage.worker_sync import FORGOTTEN, KEEPING

RENEW_SECONDS = 30.0
STALE_SECONDS = 120.0
SETTLE_SECONDS = 1.0
"""Of two drivers that start together the last to write holds the lease; after this time both see which."""
PUSH_SECONDS = 1.0
PATIENCE_SECONDS = 180.0
"""Time without an answer from the storage after which a running study stops."""
FINAL_PUSH_SECONDS = 30.0
"""Time for which the last push is retried once a study has ended."""

LEASE_FILE, CLOCK_FILE = ".lease", ".clock"


@dataclass(frozen=True)
class Lease:
    """Content of the lease object."""

    holder: str
    """The driver as host:pid; empty if it has released the lease."""
    copy_id: str
    """Identifies the copy that has progressed furthest."""
    renewed_at: float
    """Seconds since the epoch, by the server's clock."""


@contextmanager
def acquire_lease(folder: Path) -> Iterator[None]:
    """Be the only driver of a study: start with its folder as it is on S3, and keep S3 up to date within the block.

    Raises InputError if another process drives it, and on exit StorageError if not all files could be copied.
    """
    mirror = mirror_of(folder.parent)
    if not mirror.uri:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder) as locked:
        if not locked:
            raise InputError(f"{display_path(folder)} is being run by another process of this machine: wait for it")
        thread = SyncThread(mirror, folder.name, _take_lease(mirror, folder.name))
        thread.start()
        try:
            yield
        finally:
            thread.close()
            if thread.problem:  # replaces any other error: the user must learn that rows are missing on S3
                raise StorageError(thread.problem)


class LeaseLostError(StorageError):
    """Another driver has taken the lease."""


class SyncThread(threading.Thread):
    """Pushes the driver's files, renews its lease, passes on stop requests and deletes obsolete checkpoints."""

    def __init__(self, mirror: Mirror, study: str, copy_id: str):
        super().__init__(name="storage sync", daemon=True)
        self.problem = ""
        """Why files could not be copied to S3."""
        self._mirror, self._study, self._copy_id = mirror, study, copy_id
        self._folder = mirror.folder / study
        self._closing = threading.Event()
        self._pushed_mtimes: list[int] = []
        self._renewed_at = self._last_success = time.monotonic()

    def close(self) -> None:
        """Push the remaining files and release the lease."""
        self._closing.set()
        self.join()

    def run(self) -> None:
        lost = False
        while not self._closing.wait(PUSH_SECONDS):
            try:
                self._sync()
                self._last_success = time.monotonic()
            except LeaseLostError:
                lost = True
            except Exception:  # of any kind: the study must not run on for long while its rows are not copied
                lost = time.monotonic() - self._last_success > PATIENCE_SECONDS
            if lost:
                request_stop(self._folder)
        self._finish()

    def _sync(self) -> None:
        if time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renew()
        # of folders, not files: renaming or deleting a file changes its folder's time
        folders = [self._folder / name for name in ("", TRIALS, EPOCHS)]
        mtimes = [folder.stat().st_mtime_ns for folder in folders if folder.is_dir()]
        if mtimes != self._pushed_mtimes:
            self._push_rows()
            self._pushed_mtimes = mtimes
        if self._mirror.read_text(f"{self._study}/{STOP_REQUEST}") is not None:
            self._mirror.delete_object(f"{self._study}/{STOP_REQUEST}")
            request_stop(self._folder)
        for trial_id in self._mirror.list_object_names(f"{self._study}/{REMOTE_SKIPS}"):
            if trial_id not in read_skip_requests(self._folder):
                request_skip(self._folder, trial_id)
            self._mirror.push(f"{self._study}/{SKIP_REQUESTS}")  # first, so that a killed driver loses no request
            self._mirror.delete_object(f"{self._study}/{REMOTE_SKIPS}/{trial_id}")

    def _push_rows(self) -> None:
        """Push rows in the order in which they were written, then delete the checkpoints they make obsolete."""
        obsolete = list((self._folder / FORGOTTEN).glob("*"))
        self._mirror.push(*(f"{self._study}/{name}" for name in (EPOCHS, TRIALS, STUDY_JSON)), delete=True)
        for mark in obsolete:
            trial_id, _, keep = mark.name.partition(KEEPING)
            self._mirror.delete_folder(f"{self._study}/{CHECKPOINTS}/{trial_id}", keep)
            mark.unlink()

    def _renew(self) -> None:
        lease = read_lease(self._mirror, self._study)
        if lease is not None and lease.copy_id != self._copy_id:
            raise LeaseLostError(f"{display_path(self._folder)} is now run by {lease.holder or 'another process'}")
        _write_lease(self._mirror, self._study, _this_process(), self._copy_id)
        self._renewed_at = time.monotonic()

    def _finish(self) -> None:
        """Push everything and release the lease; set `problem` if that fails for FINAL_PUSH_SECONDS."""
        deadline = time.monotonic() + FINAL_PUSH_SECONDS
        while True:
            try:
                self._push_all()
                self.problem = ""
                return
            except LeaseLostError as error:
                self.problem = (
                    f"{error}: that run continues from what had arrived by then; the rest is in {self._folder}"
                )
                return
            except Exception as error:
                self.problem = (
                    f"the storage cannot be written ({error}); all rows are in {self._folder}: once it can, the same "
                    "command continues from there"
                )
                if time.monotonic() > deadline:
                    return
                time.sleep(PUSH_SECONDS)

    def _push_all(self) -> None:
        self._renew()
        self._push_rows()
        names = sorted({path.name for path in self._folder.glob("[!.]*")} - {CHECKPOINTS, STOP_REQUEST})
        self._mirror.push(*(f"{self._study}/{name}" for name in names))
        self._mirror.delete_object(f"{self._study}/{STOP_REQUEST}")
        self._renew()
        _write_lease(self._mirror, self._study, "", self._copy_id)


def _take_lease(mirror: Mirror, study: str) -> str:
    """Take the lease and, unless the local copy is ahead, copy the study from S3; return the copy's id.

    Raises InputError if another driver holds the lease.
    """
    own_id, lease = read_copy_id(mirror.folder / study), read_lease(mirror, study)
    # a former driver on this host has released the file lock; a copied cache on another host has the same id
    same_host = lease is not None and lease.holder.split(":")[0] in ("", platform.node())
    is_ahead = lease is not None and lease.copy_id == own_id and same_host
    if lease is not None and lease.holder and not is_ahead and (seconds := _seconds_left(mirror, study, lease)) > 0:
        raise InputError(
            f"{mirror.uri}/{study} is being run by {lease.holder}: stop it with python -m study stop "
            f"{mirror.uri}/{study}; if that machine is gone, wait {seconds:.0f} s"
        )
    copy_id = own_id if is_ahead else uuid.uuid4().hex
    _write_lease(mirror, study, _this_process(), copy_id)
    time.sleep(SETTLE_SECONDS)
    lease = read_lease(mirror, study)
    if lease is None or lease.copy_id != copy_id:
        raise InputError(f"{mirror.uri}/{study} was started elsewhere at the same moment: wait for it")
    mirror.delete_object(f"{study}/{STOP_REQUEST}")
    if not is_ahead:
        shutil.rmtree(mirror.folder / study / FORGOTTEN, ignore_errors=True)  # their trials may be running elsewhere
        pull_study(mirror, study)
        write_copy_id(mirror.folder / study, copy_id)
    return copy_id


def _seconds_left(mirror: Mirror, study: str, lease: Lease) -> float:
    """Return how long a lease is still valid, by the server's clock: that of this machine may differ."""
    mirror.write_text(f"{study}/{CLOCK_FILE}", "")
    clock = mirror.read_text(f"{study}/{CLOCK_FILE}")
    return STALE_SECONDS - (clock[1] - lease.renewed_at) if clock is not None else 0.0


def read_lease(mirror: Mirror, study: str) -> Lease | None:
    """Return the lease of a study on S3; None if it never had a driver."""
    found = mirror.read_text(f"{study}/{LEASE_FILE}")
    if found is None:
        return None
    text, renewed_at = found
    content = json.loads(text)
    return Lease(content["by"], content["mark"], renewed_at)


def _write_lease(mirror: Mirror, study: str, holder: str, copy_id: str) -> None:
    mirror.write_text(f"{study}/{LEASE_FILE}", json.dumps({"by": holder, "mark": copy_id}))


def _this_process() -> str:
    return f"{platform.node()}:{os.getpid()}"

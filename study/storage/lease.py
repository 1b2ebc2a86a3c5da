"""Who drives a study whose storage lies on S3, and the thread that keeps the study there as it is here.

S3 has no locks. A lease is an object that a driver writes anew every half minute; two minutes later it counts for
nothing. Its mark says whose copy has gone furthest: a driver that finds its own mark goes on from its own copy, which
may hold rows that never arrived, and any other begins by taking what is there. The driver itself never waits for the
network: what comes from there reaches it as a request to stop. Below a folder a study has its lock
(study/records/study_json.py), and nothing of this happens.
"""

from __future__ import annotations

import fcntl
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

from study.atomic import atomic_write
from study.errors import InputError
from study.records.study_json import request_stop
from study.storage.locations import display_path, mirror_of
from study.storage.mirror import Mirror, StorageError
from study.storage.worker_sync import FORGOTTEN

RENEWED_SECONDS, STALE_SECONDS = 30.0, 120.0
SETTLE_SECONDS = 1.0
"""Of two drivers that start at one moment the one that writes last has the lease; after this both know."""
PUSH_SECONDS = 1.0
PATIENCE_SECONDS, LAST_SECONDS = 180.0, 30.0
"""How long a storage may not answer: while the study runs, and once it has ended."""

LOCK_WAIT_SECONDS = 10.0
"""So long a driver waits for commands that bring this machine's copy up to date."""

LEASE, CLOCK, MARK = ".lease", ".clock", ".mark"


@dataclass(frozen=True)
class Lease:
    """Who drives a study, as host:pid, or nobody; the mark of the copy that has gone furthest; when that was said."""

    by: str
    mark: str
    at: float


@contextmanager
def acquire_lease(folder: Path) -> Iterator[None]:
    """Be the only driver of this study, begin with its folder as it is on S3, and keep it there as it becomes here.

    Raises InputError if somebody else drives it, and in the end StorageError if not all could be kept there.
    """
    mirror = mirror_of(folder.parent)
    if not mirror.uri:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _at_last(folder) as free:
        if not free:
            raise InputError(f"{display_path(folder)} is being run by another process of this machine: wait for it")
        keeper = SyncThread(mirror, folder.name, _taken(mirror, folder.name))
        keeper.start()
        try:
            yield
        finally:
            keeper.close()
            if keeper.problem:  # whatever else has happened: that rows are not there is what must be known
                raise StorageError(keeper.problem)


class SyncThread(threading.Thread):
    """Pushes what the driver writes, renews its lease, hears requests to stop and removes forgotten checkpoints."""

    def __init__(self, mirror: Mirror, study: str, mark: str):
        super().__init__(name="keeper", daemon=True)
        self.problem = ""
        """Why the storage takes no more."""
        self._mirror, self._study, self._mark = mirror, study, mark
        self._folder = mirror.folder / study
        self._closing = threading.Event()
        self._pushed: list[int] = []
        self._renewed = self._answered = time.monotonic()

    def close(self) -> None:
        """Push the rest and give the lease back."""
        self._closing.set()
        self.join()

    def run(self) -> None:
        lost = False
        while not self._closing.wait(PUSH_SECONDS):
            try:
                self._round()
                self._answered = time.monotonic()
            except LeaseLostError:
                lost = True
            except Exception:  # whatever it is: the study must not go on for long as if its rows were kept
                lost = time.monotonic() - self._answered > PATIENCE_SECONDS
            if lost:
                request_stop(self._folder)
        self._end()

    def _round(self) -> None:
        if time.monotonic() - self._renewed > RENEWED_SECONDS:
            self._renew()
        # of folders and not of files: to rename or remove a file is to write its folder
        changed = [(self._folder / name).stat().st_mtime_ns for name in ("", "trials", "epochs") if self._has(name)]
        if changed != self._pushed:
            self._push_rows()
            self._pushed = changed
        if self._mirror.read_text(f"{self._study}/stop") is not None:
            self._mirror.delete_object(f"{self._study}/stop")
            request_stop(self._folder)

    def _push_rows(self) -> None:
        """The rows, in the order in which they are written; then what they make needless is removed."""
        over = list((self._folder / FORGOTTEN).glob("*"))
        self._mirror.push(*(f"{self._study}/{name}" for name in ("epochs", "trials", "study.json")), sweep=True)
        for mark in over:
            self._mirror.delete_folder(f"{self._study}/checkpoints/{mark.name}")
            mark.unlink()

    def _renew(self) -> None:
        lease = read_lease(self._mirror, self._study)
        if lease is not None and lease.mark != self._mark:
            raise LeaseLostError(f"{display_path(self._folder)} is now run by {lease.by or 'somebody else'}")
        _write_lease(self._mirror, self._study, _self(), self._mark)
        self._renewed = time.monotonic()

    def _end(self) -> None:
        until = time.monotonic() + LAST_SECONDS
        while True:
            try:
                self._renew()
                self._push_rows()
                names = sorted({path.name for path in self._folder.glob("[!.]*")} - {"checkpoints", "stop"})
                self._mirror.push(*(f"{self._study}/{name}" for name in names))
                self._mirror.delete_object(f"{self._study}/stop")
                self._renew()
                _write_lease(self._mirror, self._study, "", self._mark)
                self.problem = ""
                return
            except LeaseLostError as error:
                self.problem = f"{error}: it goes on from what had arrived by then; the rest is in {self._folder}"
                return
            except Exception as error:
                self.problem = (
                    f"the storage takes no more ({error}); all rows are in {self._folder}: once it does, the same "
                    "command goes on from there"
                )
                if time.monotonic() > until:
                    return
                time.sleep(PUSH_SECONDS)

    def _has(self, name: str) -> bool:
        return (self._folder / name).is_dir()


class LeaseLostError(StorageError):
    """Somebody else has the lease."""


def _taken(mirror: Mirror, study: str) -> str:
    """Take the lease and, unless this copy has gone furthest, the study's folder as it is there; returns the mark."""
    own, lease = read_copy_id(mirror.folder / study), read_lease(mirror, study)
    # whoever wrote that on this machine has let go of the lock; a copy of this copy on another one has not
    here = lease is not None and lease.by.split(":")[0] in ("", platform.node())
    ahead = lease is not None and lease.mark == own and here
    mirror.write_text(f"{study}/{CLOCK}", "")
    clock = mirror.read_text(f"{study}/{CLOCK}")
    left = STALE_SECONDS - (clock[1] - lease.at) if lease is not None and clock is not None else 0.0
    if lease is not None and lease.by and not ahead and left > 0:
        raise InputError(
            f"{mirror.uri}/{study} is being run by {lease.by}: stop it with python -m study stop {mirror.uri}/{study}; "
            f"if that machine is gone, wait {left:.0f} s"
        )
    mark = own if ahead else uuid.uuid4().hex
    _write_lease(mirror, study, _self(), mark)
    time.sleep(SETTLE_SECONDS)
    lease = read_lease(mirror, study)
    if lease is None or lease.mark != mark:
        raise InputError(f"{mirror.uri}/{study} was started elsewhere at the same moment: wait for it")
    mirror.delete_object(f"{study}/stop")
    if not ahead:
        shutil.rmtree(
            mirror.folder / study / FORGOTTEN, ignore_errors=True
        )  # of trials that may go on elsewhere by now
        pull_study(mirror, study)
        with atomic_write(mirror.folder / study / MARK) as aside:
            aside.write_text(mark)
    return mark


def pull_study(mirror: Mirror, study: str) -> None:
    """Let the rows be here as they are there; those of a driver of this machine that had gone further stay aside."""
    folder = mirror.folder / study
    aside = folder / f".left-{read_copy_id(folder)}"
    for name in ("trials", "epochs") if read_copy_id(folder) and not aside.exists() else ():
        shutil.copytree(folder / name, aside / name, dirs_exist_ok=True)
    # trials first: of each that has ended, all epochs are there by then
    mirror.pull(*(f"{study}/{name}" for name in ("study.json", "report.html", "trials", "epochs")), sweep=True)


def read_lease(mirror: Mirror, study: str) -> Lease | None:
    found = mirror.read_text(f"{study}/{LEASE}")
    return Lease(**json.loads(found[0]), at=found[1]) if found else None


def _write_lease(mirror: Mirror, study: str, by: str, mark: str) -> None:
    mirror.write_text(f"{study}/{LEASE}", json.dumps({"by": by, "mark": mark}))


def read_copy_id(folder: Path) -> str:
    return (folder / MARK).read_text() if (folder / MARK).is_file() else ""


def _self() -> str:
    return f"{platform.node()}:{os.getpid()}"


@contextmanager
def _at_last(folder: Path) -> Iterator[bool]:
    """As `at_work`, with patience for those who only look."""
    until = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        with try_lock(folder) as free:
            if free or time.monotonic() > until:
                yield free
                return
        time.sleep(0.2)


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Whether nobody else of this machine is at work in this copy."""
    with (folder / ".mirror.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True

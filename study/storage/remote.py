"""Studies that lie on S3, for who looks at them, stops them or reports on them; of folders, these functions do nothing.

What is looked at is this machine's copy, brought up to date. Where the study is driven from here, or has gone further
here than there, the copy stays as it is.
"""

from __future__ import annotations

import time
from pathlib import Path

from study.records.study_json import request_stop
from study.storage.lease import STALE_SECONDS, pull_study, read_copy_id, read_lease, try_lock
from study.storage.locations import local_path, mirror_of
from study.storage.worker_sync import fetch_study_names

REPORT_FILES = ("exhibits.npz", "traceback.txt")
"""What reports show of checkpoints and teachers."""


def open_storage(address: str) -> Path:
    """A storage, with the studies in it as they are there. Raises StorageError if it does not answer."""
    if "://" not in address:
        return Path(address)
    storage = local_path(address)
    for name in mirror_of(storage).list_folders():
        refresh_copy(storage / name)
    return storage


def locate_study(study: str, address: str) -> tuple[str, Path]:
    """A study's name or path, and its storage; if that is on S3, with the study as it is there."""
    if "://" in study:
        address, _, study = study.rstrip("/").rpartition("/")
    if "://" not in address:
        return study, Path(address)
    storage = local_path(address)
    if not (refresh_copy(storage / study) / "study.json").is_file():
        fetch_study_names(storage)  # to say which there are
    return study, storage


def refresh_copy(folder: Path) -> Path:
    """A study's folder, as it is there."""
    mirror = mirror_of(folder.parent)
    if mirror.uri:
        folder.mkdir(parents=True, exist_ok=True)
        with try_lock(folder) as alone:
            lease = read_lease(mirror, folder.name)
            if alone and (lease is None or lease.mark != read_copy_id(folder)):
                pull_study(mirror, folder.name)
        pull_artifacts(folder)
    return folder


def pull_artifacts(folder: Path) -> None:
    """Fetch what a report shows of what workers on other nodes have left."""
    mirror_of(folder.parent).pull(f"{folder.name}/checkpoints", "teachers", only=REPORT_FILES)


def fetch_checkpoint(folder: Path, trial_id: str) -> Path:
    """The checkpoint of a trial, as it is there."""
    mirror_of(folder.parent).pull(f"{folder.name}/checkpoints/{trial_id}")
    return folder / "checkpoints" / trial_id


def push_report(folder: Path) -> None:
    """Put a report there that was written here."""
    mirror_of(folder.parent).push(*(f"{folder.name}/{name}" for name in ("report.html", "tables", "figures")))


def read_driver(folder: Path) -> str:
    """Who drives a study, as host:pid; empty if nobody does."""
    mirror = mirror_of(folder.parent)
    lease = read_lease(mirror, folder.name) if mirror.uri else None
    return lease.by if lease is not None and time.time() - lease.at < STALE_SECONDS else ""


def send_stop_request(folder: Path) -> None:
    """Ask whoever drives a study, wherever that is, to interrupt it."""
    mirror = mirror_of(folder.parent)
    if mirror.uri:
        mirror.write_text(f"{folder.name}/stop", "")
    else:
        request_stop(folder)

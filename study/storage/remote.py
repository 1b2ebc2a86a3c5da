"""Studies for commands that list, show, stop or report on them, wherever they are stored.

Of a study on S3 such commands read this machine's copy after updating it. If it is driven from this machine, or its
local copy is ahead of S3, the copy stays as it is. For studies in a folder nothing is copied.
"""

from __future__ import annotations

import time
from pathlib import Path

from study.errors import InputError
from study.records.lock import read_lock_holder, request_skip, request_stop
from study.records.paths import (
    CHECKPOINTS,
    FIGURES,
    REMOTE_SKIPS,
    REPORT,
    STOP_REQUEST,
    TABLES,
    TRACEBACK,
    StudyPaths,
)
from study.records.progress import read_shown_study, read_trial_rows
from study.storage.lease import STALE_SECONDS, read_lease
from study.storage.local_copy import pull_study, read_copy_id, try_lock
from study.storage.locations import display_path, local_path, mirror_of
from study.storage.worker_sync import fetch_study_names
from study.trial import TrialState

REPORT_FILES = ("exhibits.npz", TRACEBACK)
"""Files of checkpoints and teachers that reports show."""

POLL_SECONDS = 0.2


def open_storage(address: str) -> Path:
    """Return a storage's local path with all its studies up to date. Raises StorageError if it does not answer."""
    if "://" not in address:
        return Path(address)
    storage = local_path(address)
    for name in mirror_of(storage).list_folders():
        refresh_copy(storage / name)
    return storage


def locate_study(study: str, address: str) -> tuple[str, Path]:
    """Return a study's name or path, and the local path of its storage; update the copy of a study on S3.

    Raises StorageError if the storage does not answer.
    """
    if "://" in study:
        address, _, study = study.rstrip("/").rpartition("/")
    if "://" not in address:
        return study, Path(address)
    storage = local_path(address)
    if not StudyPaths(refresh_copy(storage / study)).study_json.is_file():
        fetch_study_names(storage)  # for the error that lists the existing studies
    return study, storage


def find_study(study: str, address: str) -> Path:
    """Return the folder of a study, given by its name below a storage, by a path or as s3://BUCKET/PREFIX/NAME.

    Raises InputError with the existing studies if it is neither, and StorageError if the storage does not answer.
    """
    name, storage = locate_study(study, address)
    for folder in (storage / name, Path(name)):
        if StudyPaths(folder).study_json.is_file():
            return folder
    if StudyPaths(storage / name).lock.is_file() and find_driver(storage / name):
        raise InputError(f"study {name!r} is just being started: try again in a few seconds")
    names = [folder.name for folder in list_study_folders(storage)] if storage.is_dir() else []
    known = f"there are: {', '.join(names)}" if names else "there is none"
    below = display_path(storage)
    raise InputError(f"no study {name!r} below {below} ({known}): give a name, a path, or another --storage-path")


def list_study_folders(storage: Path) -> list[Path]:
    """Return the studies below `storage`; a starting one has a lock before it has a study.json."""
    folders = sorted(path for path in storage.iterdir() if path.is_dir())
    return [folder for folder in folders if StudyPaths(folder).study_json.is_file() or find_driver(folder)]


def refresh_copy(folder: Path) -> Path:
    """Update this machine's copy of a study's folder, and return the folder."""
    mirror = mirror_of(folder.parent)
    if mirror.uri:
        folder.mkdir(parents=True, exist_ok=True)
        with try_lock(folder) as locked:
            lease = read_lease(mirror, folder.name)
            if locked and (lease is None or lease.copy_id != read_copy_id(folder)):
                pull_study(mirror, folder.name)
        pull_artifacts(folder)
    return folder


def pull_artifacts(folder: Path) -> None:
    """Fetch the files of workers on other nodes that a report shows."""
    mirror_of(folder.parent).pull(f"{folder.name}/{CHECKPOINTS}", "teachers", names=REPORT_FILES)


def fetch_checkpoint(folder: Path, trial_id: str) -> Path:
    """Fetch and return the checkpoint folder of a trial."""
    mirror_of(folder.parent).pull(f"{folder.name}/{CHECKPOINTS}/{trial_id}")
    return StudyPaths(folder).checkpoint(trial_id)


def push_report(folder: Path) -> None:
    """Copy a report that was written locally to S3."""
    mirror_of(folder.parent).push(*(f"{folder.name}/{name}" for name in (REPORT, TABLES, FIGURES)))


def find_driver(folder: Path) -> str:
    """Return the process that runs the study in this folder, as host:pid; empty if none does."""
    if holder := read_lock_holder(folder):
        return holder
    mirror = mirror_of(folder.parent)
    lease = read_lease(mirror, folder.name) if mirror.uri else None
    return lease.holder if lease is not None and time.time() - lease.renewed_at < STALE_SECONDS else ""


# -- requests to a driver ----------------------------------------------------------------------------------------------


def stop_study(folder: Path, wait_seconds: float) -> str:
    """Ask the study's driver to stop and wait until it has; return the driver that still runs it, or "".

    Raises InputError if the folder cannot be written.
    """
    driver = find_driver(folder)
    if not driver:
        return ""
    try:
        send_stop_request(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): stop it as the user who runs it") from None
    deadline = time.monotonic() + wait_seconds
    while find_driver(folder) == driver:
        if time.monotonic() >= deadline:
            return driver
        time.sleep(POLL_SECONDS)
    return ""


def skip_trial(folder: Path, trial_id: str) -> None:
    """Ask the study's driver to end a running search trial after the epoch that it trains.

    Raises InputError if there is no such trial, or the folder cannot be written. Confirm runs are not skipped: leaving
    seeds out by what they look like would make the comparison worthless.
    """
    if not find_driver(folder):
        raise InputError(f"{folder.name} does not run: only trials of a running study can be skipped")
    rows = read_trial_rows(folder, read_shown_study(folder))
    trial = next((row for row in rows if row["trial_id"] == trial_id), None)
    if trial is None or trial["phase"] != "search" or TrialState(trial["state"]).is_finished:
        raise InputError(f"{trial_id} is no running search trial of {folder.name}: only those can be skipped")
    try:
        send_skip_request(folder, trial_id)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): skip it as the user who runs it") from None


def send_stop_request(folder: Path) -> None:
    """Ask a study's driver, on whichever machine, to interrupt the study."""
    mirror = mirror_of(folder.parent)
    if mirror.uri:
        mirror.write_text(f"{folder.name}/{STOP_REQUEST}", "")
    else:
        request_stop(folder)


def send_skip_request(folder: Path, trial_id: str) -> None:
    """Ask a study's driver, on whichever machine, to end a search trial."""
    mirror = mirror_of(folder.parent)
    if mirror.uri:
        mirror.write_text(f"{folder.name}/{REMOTE_SKIPS}/{trial_id}", "")
    else:
        request_skip(folder, trial_id)

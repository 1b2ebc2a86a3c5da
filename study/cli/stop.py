"""Requests to the driver of a running study: to interrupt it (python -m study stop), or to skip a trial."""

from __future__ import annotations

import time
from pathlib import Path

from study.errors import InputError
from study.records.progress import read_shown_study, read_trial_rows
from study.storage.remote import find_driver, send_skip_request, send_stop_request
from study.trial import TrialState

POLL_SECONDS = 0.2


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
        raise InputError(f"{folder.name} does not run: nothing is skipped")
    rows = read_trial_rows(folder, read_shown_study(folder))
    trial = next((row for row in rows if row["trial_id"] == trial_id), None)
    if trial is None or trial["phase"] != "search" or TrialState(trial["state"]).is_finished:
        raise InputError(f"{trial_id} is no running search trial of {folder.name}: only those can be skipped")
    try:
        send_skip_request(folder, trial_id)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): skip it as the user who runs it") from None

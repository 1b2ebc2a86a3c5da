"""python -m study stop: asks the driver of a running study to interrupt it."""

from __future__ import annotations

import time
from pathlib import Path

from study.cli.list_studies import find_driver
from study.errors import InputError
from study.storage.remote import send_stop_request

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

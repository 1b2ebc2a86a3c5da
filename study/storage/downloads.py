"""Permission to download published files, which a command gives by --download and no one else."""

from __future__ import annotations

import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError

from study.errors import InputError, join_lines

VARIABLE = "KDSTUDY_DOWNLOAD"
"""Set while a command may download; processes that it starts inherit it."""


def permit_downloads() -> None:
    """Let this process, and those that it starts, fetch data and weights that are missing."""
    os.environ[VARIABLE] = "1"


def are_downloads_permitted() -> bool:
    return os.environ.get(VARIABLE) == "1"


def download(url: str, target: Path, fetch: Callable[[], object]) -> None:
    """Call `fetch`, which downloads `url` to `target` and verifies its checksum.

    Raises InputError, in one line, if the server does not answer, the bytes differ or the disk refuses them.
    """
    print(f"downloading {url} to {target}", flush=True)
    try:
        fetch()
    # torch and torchvision raise RuntimeError for another checksum
    except (OSError, RuntimeError, EOFError, TarError, HTTPException) as error:
        reason = join_lines(getattr(error, "reason", None) or error)
        raise InputError(f"{url} cannot be downloaded to {target}: {reason}; download it by hand") from None

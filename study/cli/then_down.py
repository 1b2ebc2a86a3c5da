"""--then down: once a study has ended on a cluster, copy the storage to this machine and end the cluster.

Whatever is in doubt leaves the cluster running: a file of another cluster, another job, a copy that failed, a copy that
differs from the head's.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from study.cli.output import to_json
from study.cli.status import read_status
from study.cluster import addresses, jobs
from study.errors import InputError
from study.records.parquet_table import RecordsError

FETCHED = Path("fetched")
"""Folder of the copies. Each has a folder of its own in it, so that none replaces files of another."""

ENDED = (0, 1, 3)
"""Exit codes of a study that will not continue by itself: done, a cell failed, stopped by a cap or on request."""

COMPARED = ("question", "cells", "used")
"""Parts of `kdstudy show --json` that are the same in a complete copy: scores, and epochs and hours used."""


def check_options(address: str | None, file: Path) -> None:
    """Raise InputError for a study on no cluster, or without what ends one: its file, and the command `ray`."""
    if not addresses.uses_job_api(address):
        raise InputError("--then down is for a study on a cluster: give --address http://HOST:PORT of its dashboard")
    if not file.is_file():
        raise InputError(f"--then down: there is no {file} here; give the file of `ray up` as --cluster-file")
    if shutil.which("ray") is None:
        raise InputError("--then down: there is no command `ray`; activate the environment in which it is installed")


def check_cluster(address: str, file: Path) -> None:
    """Raise InputError unless the head of a cluster file runs the Ray at an address: `ray down` ends the file's."""
    session = addresses.read_dashboard(address, "session_name")
    # the processes of Ray name their session; [s] does not match itself, so not the shell that runs pgrep
    words = ("exec", str(file), shlex.join(["pgrep", "-f", f"[{session[0]}]{session[1:]}"]))
    done = subprocess.run(["ray", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise InputError(
            f"--then down: the head of {file} does not run the Ray at {address} (`ray {shlex.join(words)}` ended with "
            f"exit code {done.returncode}); give the file of its `ray up` as --cluster-file"
        )


def end_cluster(address: str, file: Path, storage: str, study: str) -> None:
    """Copy the results of a study that has ended, unless they are on S3, and end its cluster.

    Raises InputError with the reason if the cluster is left running.
    """
    try:
        check_cluster(address, file)
        _check_jobs(address)
        if not storage.startswith("s3://"):
            _fetch(address, file, storage, study)
            _check_jobs(address)  # submitted while files were copied
        _call_ray("down", "-y", str(file))
    except (InputError, RecordsError, OSError, ValueError, KeyError) as error:
        raise InputError(f"the cluster is left running: {error}; to end it: ray down {file}") from None


def _check_jobs(address: str) -> None:
    if running := jobs.list_running(address):
        raise InputError(f"jobs run there: {', '.join(running)}")


def _fetch(address: str, file: Path, storage: str, study: str) -> None:
    target = FETCHED / f"{study}-{datetime.now():%Y%m%d-%H%M%S}"
    target.mkdir(parents=True)
    _call_ray("rsync-down", str(file), f"{jobs.locate_on_head(storage).rstrip('/')}/", f"{target}/")
    words = ["show", study, "--json", "--storage-path", storage]
    output, code = jobs.run_on_head(address, words, study)
    if code:
        raise InputError(f"the study cannot be read on the head: {output}")
    there = json.loads(output[output.find("{") :])  # behind warnings, which are in a job's output, too
    here = json.loads(to_json(asdict(read_status(target / study))))
    if differing := [part for part in COMPARED if not _is_same(there[part], here[part])]:
        raise InputError(f"the copy in {target} differs from the head's in {', '.join(differing)}")
    click.echo(f"results: {target / study}", err=True)


def _is_same(there: Any, here: Any) -> bool:
    """Compare what two machines report; their sums of seconds may differ in the last digits."""
    if isinstance(there, dict) and isinstance(here, dict):
        return there.keys() == here.keys() and all(_is_same(there[name], here[name]) for name in there)
    if isinstance(there, list) and isinstance(here, list):
        return len(there) == len(here) and all(map(_is_same, there, here))
    if isinstance(there, float) and isinstance(here, float):
        return math.isclose(there, here)
    return bool(there == here)


def _call_ray(*words: str) -> None:
    """Run a command of Ray; its output is shown. Raises InputError if it fails."""
    click.echo(f"ray {shlex.join(words)}", err=True)
    if code := subprocess.run(["ray", *words], stdin=subprocess.DEVNULL, check=False).returncode:
        raise InputError(f"ray {shlex.join(words)} ended with exit code {code}")

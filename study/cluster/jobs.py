"""Studies on a cluster that this machine is not part of: submitted to the head as Ray jobs, followed and queried.

Everything goes through Ray's job API at the address that `ray dashboard cluster.yaml` opens. A job carries the space
file and the modules of its folder that it imports. The package, data and environment variables are the head's own;
relative paths start in the home folder of the head's user.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from study.cluster.addresses import read_dashboard, uses_job_api
from study.errors import InputError, join_lines

INSTALLED_PACKAGES = {"study", "trainables", "reports"}
"""Packages that every node has and that no job carries."""

LOG_HEADER = re.compile(r"^Running entrypoint for job .*\n", re.MULTILINE)
"""Ray's last line of a job's log before the output of its command."""

POLL_SECONDS = 0.3
END_SECONDS = 15.0
"""Time in which a job whose log has ended must end itself."""
DETACHED_EXIT_CODE = 130


def submit_study(
    address: str,
    space: Path,
    words: Sequence[str],
    storage: str,
    study: str,
    trains: bool = True,
    variables: Mapping[str, str] | None = None,
) -> int:
    """Run a study on the head as a job and print its output; return its exit code.

    Returns DETACHED_EXIT_CODE if the job runs on unattended after Ctrl-C or a lost connection. `study` is its name, if
    known; `trains` is false for a job that only answers, such as --dry-run; `variables` are set in its environment.
    Raises InputError if the cluster takes no job.
    """
    client = _connect(address)
    job = f"{study or space.stem}-{uuid.uuid4().hex[:8]}"
    metadata = {"kdstudy_study": study, "kdstudy_storage": storage} if trains else {}
    try:
        carried = _submit(client, job, space, words, metadata, variables)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"the cluster at {address} did not accept the job: {join_lines(error)}") from None
    click.echo(f"{carried} sent to {address} as job {job}; package, data and variables there are its own", err=True)
    message = "the connection is lost; the study continues as long as its head runs"
    try:
        code = _follow(client, job)
    except KeyboardInterrupt:
        code, message = None, "no longer followed; the study continues"
    if code is None:
        click.echo(f"\n{message}: {_next_commands(address, study, storage)}", err=True)
        return DETACHED_EXIT_CODE
    if trains and study and code in (1, 3, DETACHED_EXIT_CODE):
        click.echo("from here, the same command continues it", err=True)
    elif trains and study and not code:
        click.echo(f"onto this disk: {_download_command(storage, study)}", err=True)
    return code


def run_on_head(address: str, words: Sequence[str], study: str = "") -> tuple[str, int]:
    """Run `python -m study` with these words on the head; return its output and exit code.

    A missing --storage-path becomes the one that this study, or else the last one, was submitted with.
    Raises InputError if the cluster takes no job, or is lost before the command ends.
    """
    client = _connect(address)
    try:
        storage = [] if "--storage-path" in words else _find_storage_option(client, study)
        job = client.submit_job(entrypoint=f"cd && exec python -m study {shlex.join([*words, *storage])}")
        info = _wait_for_end(client, job)
        output = LOG_HEADER.split(client.get_job_logs(job), maxsplit=1)[-1]
        client.delete_job(job)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"the cluster at {address} does not answer: {join_lines(error)}; try again later") from None
    if info.driver_exit_code is None:
        raise InputError(f"the cluster at {address} could not run its command: {join_lines(info.message)}")
    return output, info.driver_exit_code


def _connect(address: str) -> Any:
    if not uses_job_api(address):
        raise InputError(f"address {address!r}: allowed is http://HOST:PORT of a dashboard; on the head, leave it out")
    head, here = read_dashboard(address), version("ray")
    if head != here:
        click.echo(f"Ray is {here} here and {head} there: jobs run with the cluster's", err=True)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would prefer it to the given address
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # Ray's lines about uploads
    return JobSubmissionClient(address)


def _submit(
    client: Any,
    job: str,
    space: Path,
    words: Sequence[str],
    metadata: dict[str, str],
    variables: Mapping[str, str] | None,
) -> str:
    """Submit the study; return the names of the files that go with it."""
    carried = [space, *_find_imported_modules(space)]
    # relative paths start where `ray attach` leads, the home folder, and not in the job's own, which is deleted with it
    run = f'cd && exec python -m study.run "$OLDPWD"/{shlex.quote(space.name)}'
    with tempfile.TemporaryDirectory(prefix="kdstudy-job-") as folder:
        for path in carried:
            target = Path(folder) / path.name
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, target)
        client.submit_job(
            entrypoint=f"{run} {shlex.join([*words, '--address', 'auto'])}",
            submission_id=job,
            runtime_env={"working_dir": folder, "env_vars": dict(variables or {})},
            metadata=metadata,
        )
    return ", ".join(path.name for path in carried)


def _find_imported_modules(space: Path) -> list[Path]:
    """Return the modules and packages of the space file's folder that it has imported."""
    folder = space.resolve().parent
    found = []
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if name not in INSTALLED_PACKAGES and path in (folder / f"{name}.py", folder / name / "__init__.py"):
            found.append(path.parent if path.name == "__init__.py" else path)
    return sorted(found)


def _follow(client: Any, job: str) -> int | None:
    """Print a job's log until it ends; return its exit code, or None if the connection is lost first."""
    import aiohttp

    try:
        asyncio.run(_print_log(client, job))
        info = _wait_for_end(client, job, END_SECONDS)
    except (OSError, RuntimeError, aiohttp.ClientError):
        return None
    if info is None or info.driver_exit_code is not None:
        return info and int(info.driver_exit_code)
    click.echo(f"the job ended without an exit code: {info.status}, {join_lines(info.message)}", err=True)
    return 1


async def _print_log(client: Any, job: str) -> None:
    header: str | None = ""
    async for text in client.tail_job_logs(job):
        if header is not None:
            header += text
            if LOG_HEADER.search(header) is None:
                continue
            text, header = LOG_HEADER.split(header, maxsplit=1)[-1], None
        click.echo(text, nl=False)


def _wait_for_end(client: Any, job: str, seconds: float = math.inf) -> Any:
    """Return Ray's JobDetails once the job has ended; None if it has not within this time."""
    deadline = time.monotonic() + seconds
    while not (info := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    return info


def _find_storage_option(client: Any, study: str) -> list[str]:
    jobs = sorted(client.list_jobs(), key=lambda job: job.start_time or 0)
    submitted = [job.metadata for job in jobs if "kdstudy_storage" in (job.metadata or {})]
    own = [metadata for metadata in submitted if study and metadata["kdstudy_study"] == study]
    return ["--storage-path", (own or submitted)[-1]["kdstudy_storage"]] if submitted else []


def _next_commands(address: str, study: str, storage: str) -> str:
    options = f"--address {address}" + (f" --storage-path {shlex.quote(storage)}" if storage != "runs" else "")
    if not study:
        return f"look with python -m study list {options}"
    return f"look with python -m study show {study} {options}, stop it with python -m study stop {study} {options}"


def _download_command(storage: str, study: str) -> str:
    """Return the command that copies a study's folder to this machine."""
    source, target = f"{locate_on_head(storage).rstrip('/')}/{study}/", f"runs/{study}/"
    if storage.startswith("s3://"):
        return f"aws s3 sync {source} {target}"
    return f"mkdir -p {target} && ray rsync-down cluster.yaml {shlex.quote(source)} {target}"


def locate_on_head(storage: str) -> str:
    """Return where a storage lies on the head: relative paths start in its user's home folder."""
    return storage if storage.startswith(("/", "~", "s3://")) else f"~/{storage}"


def list_running(address: str) -> list[str]:
    """Return the names of the cluster's jobs that have not ended; one that is ending has a few seconds to do so.

    Raises InputError if the cluster does not answer.
    """
    client, deadline = _connect(address), time.monotonic() + END_SECONDS
    try:
        while running := [job for job in client.list_jobs() if not job.status.is_terminal()]:
            if time.monotonic() > deadline:
                return [str(job.submission_id or job.job_id) for job in running]
            time.sleep(POLL_SECONDS)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"the cluster at {address} does not answer: {join_lines(error)}; try again later") from None
    return []

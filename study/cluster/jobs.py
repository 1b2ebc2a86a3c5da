"""Studies on a cluster that this machine is no part of: submitted to its head as a job, followed, and asked about.

Everything goes through Ray's job API, at the address that `ray dashboard cluster.yaml` opens. The space file is carried
there, and the modules beside it that it imports. This package, data and environment variables are the head's own;
relative paths start in its user's home folder.
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
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from study.cluster.addresses import check_dashboard, uses_job_api
from study.errors import InputError

OURS = {"study", "trainables", "reports"}
"""Packages that every node has."""

BEGINS = re.compile(r"^Running entrypoint for job .*\n", re.MULTILINE)
"""After this line of Ray's, a job's log is what its command prints."""

POLL_SECONDS, END_SECONDS = 0.3, 15.0
LEFT = 130


def submit(address: str, space: Path, words: Sequence[str], storage: str, study: str, lasting: bool = True) -> int:
    """Run a study there as a job and print what it prints; returns its exit code, or LEFT if it goes on without us.

    `study` is its name, if that is known; `lasting` is not what only asks.
    Raises InputError if the cluster takes no job.
    """
    client = _client(address)
    job = f"{study or space.stem}-{uuid.uuid4().hex[:8]}"
    metadata = {"kdstudy_study": study, "kdstudy_storage": storage} if lasting else {}
    try:
        carried = _sent(client, job, space, words, metadata)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"the cluster at {address} took no job: {_in_one_line(error)}") from None
    click.echo(f"{carried} sent to {address} as job {job}; package, data and variables there are its own", err=True)
    left = "the connection is lost; the study goes on as long as its head runs"
    try:
        code = _followed(client, job)
    except KeyboardInterrupt:
        code, left = None, "no longer followed; the study goes on"
    if code is None:
        click.echo(f"\n{left}: {_ways(address, study, storage)}", err=True)
        return LEFT
    if lasting and study and code in (1, 3, LEFT):
        click.echo("from here, the same command goes on with it", err=True)
    elif lasting and study and not code:
        click.echo(f"onto this disk: {_fetching(storage, study)}", err=True)
    return code


def ask(address: str, words: Sequence[str], study: str = "") -> tuple[str, int]:
    """What `python -m study` answers to these words on the head there, and its exit code.

    A storage path that is not among them is the one that the study, or the last one, was submitted with.
    Raises InputError if the cluster takes no job, or is lost before it answers.
    """
    client = _client(address)
    try:
        where = [] if "--storage-path" in words else _storage(client, study)
        job = client.submit_job(entrypoint=f"cd && exec python -m study {shlex.join([*words, *where])}")
        ended = _ended(client, job)
        answer = BEGINS.split(client.get_job_logs(job), maxsplit=1)[-1]
        client.delete_job(job)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"the cluster at {address} does not answer: {_in_one_line(error)}") from None
    if ended.driver_exit_code is None:
        raise InputError(f"the cluster at {address} could not run its command: {_in_one_line(ended.message)}")
    return answer, ended.driver_exit_code


def from_here(answer: str, address: str) -> str:
    """An answer of the head's with the next steps as they are taken from here."""
    answer = re.sub(r"python -m study stop \S+", rf"\g<0> --address {address}", answer)
    return re.sub(r"python -m study resume \S+", "the command that it was submitted with", answer)


def command_words(context: click.Context, *without: str) -> list[str]:
    """What the command line gave, as words for another one; without --address, and `without`."""
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name in ("address", *without):
            continue
        value = context.params[name]
        values = [str(one) for one in (value if isinstance(value, tuple) else (value,))]
        if isinstance(parameter, click.Argument):
            words += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
        else:
            words += [word for one in values for word in (parameter.opts[-1], one)]
    return words


def _client(address: str) -> Any:
    if not uses_job_api(address):
        raise InputError(f"address {address!r}: allowed is http://HOST:PORT of a dashboard; on the head, leave it out")
    theirs = check_dashboard(address)
    if theirs != (ours := version("ray")):
        click.echo(f"Ray is {ours} here and {theirs} there: what runs there is theirs", err=True)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would take it instead of the address that was given
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # of uploads
    return JobSubmissionClient(address)


def _sent(client: Any, job: str, space: Path, words: Sequence[str], metadata: dict[str, str]) -> str:
    """Submit the study; returns the names of what is carried there."""
    carried = [space, *_beside(space)]
    # relative paths are taken from where `ray attach` leads, not from a job's own folder, which goes with it
    run = f'cd && exec python -m study.run "$OLDPWD"/{shlex.quote(space.name)}'
    with tempfile.TemporaryDirectory(prefix="kdstudy-job-") as folder:
        for path in carried:
            to = Path(folder) / path.name
            if path.is_dir():
                shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, to)
        client.submit_job(
            entrypoint=f"{run} {shlex.join([*words, '--address', 'auto'])}",
            submission_id=job,
            runtime_env={"working_dir": folder},
            metadata=metadata,
        )
    return ", ".join(path.name for path in carried)


def _beside(space: Path) -> list[Path]:
    """The modules and packages in the space file's own folder that have been imported by it."""
    folder = space.resolve().parent
    found = []
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if name not in OURS and path in (folder / f"{name}.py", folder / name / "__init__.py"):
            found.append(path.parent if path.name == "__init__.py" else path)
    return sorted(found)


def _followed(client: Any, job: str) -> int | None:
    """Print a job's log until it ends; returns its exit code, or None if the connection is lost first."""
    import aiohttp

    try:
        asyncio.run(_printed(client, job))
        ended = _ended(client, job, END_SECONDS)
    except (OSError, RuntimeError, aiohttp.ClientError):
        return None
    if ended is None or ended.driver_exit_code is not None:
        return ended and int(ended.driver_exit_code)
    click.echo(f"the job ended without an exit code: {ended.status}, {_in_one_line(ended.message)}", err=True)
    return 1


async def _printed(client: Any, job: str) -> None:
    before: str | None = ""
    async for text in client.tail_job_logs(job):
        if before is not None:
            before += text
            if BEGINS.search(before) is None:
                continue
            text, before = BEGINS.split(before, maxsplit=1)[-1], None
        click.echo(text, nl=False)


def _ended(client: Any, job: str, seconds: float = math.inf) -> Any:
    """Ray's account of a job, once it has ended; None if it has not within these seconds."""
    until = time.monotonic() + seconds
    while not (told := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > until:
            return None
        time.sleep(POLL_SECONDS)
    return told


def _storage(client: Any, study: str) -> list[str]:
    jobs = sorted(client.list_jobs(), key=lambda job: job.start_time or 0)
    sent = [job.metadata for job in jobs if "kdstudy_storage" in (job.metadata or {})]
    own = [told for told in sent if study and told["kdstudy_study"] == study]
    return ["--storage-path", (own or sent)[-1]["kdstudy_storage"]] if sent else []


def _ways(address: str, study: str, storage: str) -> str:
    where = f"--address {address}" + (f" --storage-path {shlex.quote(storage)}" if storage != "runs" else "")
    if not study:
        return f"look with python -m study list {where}"
    return f"look with python -m study show {study} {where}, stop it with python -m study stop {study} {where}"


def _fetching(storage: str, study: str) -> str:
    """The command that brings what a study has left onto one's own disk."""
    there, here = f"{storage.rstrip('/')}/{study}/", f"runs/{study}/"
    if storage.startswith("s3://"):
        return f"aws s3 sync {there} {here}"
    home = "" if storage.startswith(("/", "~")) else "~/"
    return f"mkdir -p {here} && ray rsync-down cluster.yaml {shlex.quote(home + there)} {here}"


def _in_one_line(told: object) -> str:
    return " ".join(str(told).split())[:400]

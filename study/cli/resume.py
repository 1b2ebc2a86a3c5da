"""Going on with a study by what its study.json says, and asking a running one to stop. For `resume` and `stop`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from study.cli import run
from study.cli.list_studies import find_driver, read_shown_study
from study.cli.status import format_study_argument
from study.code_version import digest_code
from study.errors import InputError
from study.records.segments import RecordsError
from study.storage.locations import display_path, mirror_of
from study.storage.remote import send_stop_request

STARTS = (["python", "-m", "study.run"], ["python", "-m", "study", "run"], ["kdstudy", "run"])
"""How recorded commands begin."""

OF_ONE_RUN = {"fresh", "retry_failed", "allow_code_change", "dry_run", "seconds_per_epoch"}
"""Options that were meant for the run they were given to."""

NOT_WITH_RESUME = {"space", "name", "fresh", "storage_path"}
"""What the record decides."""

POLL_SECONDS = 0.2


def resume_study(folder: Path, more: Sequence[str]) -> None:
    """Run the study in `folder` on, by its recorded command and more options; ends the process as study.run does.

    Raises InputError if it runs already, if the record cannot be followed, or if its space file is not the same.
    """
    if by := find_driver(folder):
        raise InputError(
            f"{folder} is being run already, by {by}: stop it with python -m study stop {format_study_argument(folder)}"
        )
    folder = folder.resolve()
    study = read_shown_study(folder)
    words = build_command_words(folder, study, more)
    os.chdir(_directory(study))
    check_space(folder, study, Path(words[0]), "--allow-code-change" in words)
    sys.argv[1:] = words  # which study.run quotes as the command that goes on
    run.main.main(words, prog_name="python -m study.run")


def build_command_words(folder: Path, study: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    """The words after `python -m study.run`: the recorded ones, each option of `more` in place of the recorded one.

    Raises InputError for an option that would make it another study.
    """
    if folder.name != study["name"]:
        raise InputError(
            f"{folder} holds the study {study['name']!r}: call the folder {study['name']} again, then resume"
        )
    added = _options(more)
    if refused := sorted(NOT_WITH_RESUME & added.keys()):
        raise InputError(f"{_flag(refused[0])} does not go with resume: give it to python -m study run")
    there = _directory(study)
    recorded = {name: value for name, value in _options(_recorded(folder, study)).items() if name not in OF_ONE_RUN}
    if there != Path.cwd():  # the command that is shown and recorded then holds wherever it is given
        recorded, added = _anchored(recorded, there), _anchored(added, Path.cwd())
    given = there / Path(recorded.get("storage_path", "runs")).expanduser()
    if mirror_of(folder.parent).uri or given.resolve() != folder.parent:
        recorded["storage_path"] = display_path(folder.parent)  # the study was moved, or is no path
    merged = recorded | added
    return [merged.pop("space"), *(word for name, value in merged.items() for word in _words(name, value))]


def check_space(folder: Path, study: Mapping[str, Any], path: Path, change_allowed: bool = False) -> None:
    """Raises InputError if the space file is gone, or has other code than the study was run with and may not."""
    source = read_source(folder, study)
    back = f"python -m study show {format_study_argument(folder)} --space > {shlex.quote(str(path))}"
    try:
        now = path.read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"the space file {path} is gone: write it back with: {back}") from None
    except UnicodeDecodeError:
        now = ""
    if not change_allowed and digest_code(source.encode()) != digest_code(now.encode()):
        raise InputError(
            f"the space file {path} has changed since this study ran ({_first_change(source, now)}): write it back "
            f"with: {back}; or, if that is meant: {study['provenance']['command']}"
        )


def read_source(folder: Path, study: Mapping[str, Any]) -> str:
    """The text of the space file that the study was run with. Raises RecordsError if it is not on record."""
    source = study["space"].get("source")
    if not isinstance(source, str):
        raise RecordsError(f"{folder / 'study.json'} is damaged, it lacks space.source: restore it from a copy")
    return source


def stop_study(folder: Path, wait_seconds: float) -> str:
    """Ask the study's driver to stop and wait until it has; says who still runs it, or nothing.

    Raises InputError if the folder cannot be written.
    """
    by = find_driver(folder)
    if not by:
        return ""
    try:
        send_stop_request(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): stop it as the user who runs it") from None
    until = time.monotonic() + wait_seconds
    while find_driver(folder) == by:
        if time.monotonic() >= until:
            return by
        time.sleep(POLL_SECONDS)
    return ""


def _recorded(folder: Path, study: Mapping[str, Any]) -> list[str]:
    command = str(study["provenance"].get("command", ""))
    for start in STARTS:
        words = shlex.split(command)
        if words[: len(start)] == start and len(words) > len(start):
            return words[len(start) :]
    raise InputError(
        f"{folder / 'study.json'} records the command {command!r}, which is none of python -m study.run: "
        "give the command by hand"
    )


def _options(words: Sequence[str]) -> dict[str, Any]:
    """What study.run's command line says, by parameter, as text; a flag as True, a repeatable option as a list."""
    given, left, _ = run.main.make_parser(_context()).parse_args(list(words))
    if left:
        raise InputError(f"unexpected argument {left[0]!r}")
    return {name: value for name, value in given.items() if isinstance(value, str | bool | list)}


def _context() -> click.Context:
    return click.Context(run.main, info_name="python -m study.run", **run.main.context_settings)


def _words(name: str, value: Any) -> list[str]:
    if value is True:
        return [_flag(name)]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (_flag(name), one)]


def _flag(name: str) -> str:
    """A parameter's option as it is given: the last of its spellings is the long one."""
    if name == "space":
        return "another space file"
    return next(option.opts[-1] for option in run.main.get_params(_context()) if option.name == name)


def _anchored(given: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The same, with relative paths taken from `directory`."""
    paths = {option.name for option in run.main.params if isinstance(option.type, click.Path)}
    return {
        name: str(directory / Path(value).expanduser()) if name in paths and "://" not in value else value
        for name, value in given.items()
    }


def _directory(study: Mapping[str, Any]) -> Path:
    """Where the last run was started, which relative paths are meant from; here, if that is not known or gone."""
    recorded = study["provenance"].get("cwd")
    return Path(recorded) if recorded and Path(recorded).is_dir() else Path.cwd()


def _first_change(old: str, new: str) -> str:
    for number, (was, now) in enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue=""), 1):
        if was != now:
            return f"first in line {number}: {was.strip()!r} → {now.strip()!r}"
    return "in its line ends"

"""python -m study resume: runs the command that is recorded in a study's study.json again."""

from __future__ import annotations

import io
import os
import shlex
import tokenize
from collections.abc import Mapping, Sequence
from importlib.util import decode_source
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from study.cli import run
from study.cli.options import RUN_COMMAND, format_option, format_words
from study.cli.status import format_study_argument
from study.code_version import digest_code
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.records.paths import DEFAULT_STORAGE, StudyPaths
from study.records.progress import read_shown_study
from study.storage.locations import display_path, mirror_of
from study.storage.remote import find_driver

RUN_COMMANDS = (RUN_COMMAND.split(), ["python", "-m", "study", "run"], ["kdstudy", "run"])
"""First words of recorded commands."""

ONE_RUN_OPTIONS = {"download", "fresh", "retry_failed", "allow_code_change", "dry_run", "seconds_per_epoch"}
"""Recorded options that hold only for the run they were given to."""

REFUSED_OPTIONS = {"space", "name", "fresh", "storage_path"}
"""Options that would make it another study."""


def resume_study(folder: Path, more: Sequence[str]) -> None:
    """Run the recorded command with the options `more`; ends the process as study.run does.

    Raises InputError if the study is running, its command cannot be repeated, or its space file has changed.
    """
    if driver := find_driver(folder):
        stop = f"python -m study stop {format_study_argument(folder)}"
        raise InputError(f"{folder} is being run already, by {driver}: stop it with {stop}")
    folder = folder.resolve()
    study = read_shown_study(folder)
    words = build_command_words(folder, study, more)
    os.chdir(_find_start_directory(study))
    check_space(folder, study, Path(words[0]), "--allow-code-change" in words)
    run.main.main(words, prog_name=RUN_COMMAND)


def build_command_words(folder: Path, study: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    """Return the words after `python -m study.run`: the recorded ones, overridden by the options in `more`.

    Raises InputError for an option that would make it another study.
    """
    if folder.name != study["name"]:
        raise InputError(
            f"{folder} holds the study {study['name']!r}: rename the folder to {study['name']}, then resume"
        )
    added = _parse_options(more)
    if refused := sorted(REFUSED_OPTIONS & added.keys()):
        option = "another space file" if refused[0] == "space" else format_option(refused[0])
        raise InputError(f"{option} does not go with resume: give it to python -m study run")
    start = _find_start_directory(study)
    words = _read_recorded_words(folder, study)
    recorded = {name: value for name, value in _parse_options(words).items() if name not in ONE_RUN_OPTIONS}
    if start != Path.cwd():  # absolute paths, so that the new command can be repeated from any directory
        recorded, added = _make_absolute(recorded, start), _make_absolute(added, Path.cwd())
    storage = start / Path(recorded.get("storage_path", DEFAULT_STORAGE)).expanduser()
    if mirror_of(folder.parent).uri or storage.resolve() != folder.parent:
        recorded["storage_path"] = display_path(folder.parent)  # the study was moved, or lies on S3
    options = recorded | added
    return [options.pop("space"), *format_words(options)]


def check_space(folder: Path, study: Mapping[str, Any], path: Path, change_allowed: bool = False) -> None:
    """Raise InputError if the space file is gone, or has changed since the study ran and that is not allowed."""
    source = read_source(folder, study)
    restore = f"python -m study show {format_study_argument(folder)} --space > {shlex.quote(str(path))}"
    try:
        current = decode_source(path.read_bytes())
    except OSError:
        raise InputError(f"the space file {path} is gone: write it back with: {restore}") from None
    except (SyntaxError, UnicodeDecodeError):
        current = ""
    if not change_allowed and digest_code(source.encode()) != digest_code(current.encode()):
        raise InputError(
            f"the space file {path} has changed since this study ran ({_find_first_change(source, current)}): write it "
            f"back with: {restore}; or, to run it as it is now: {study['provenance']['command']}"
        )


def read_source(folder: Path, study: Mapping[str, Any]) -> str:
    """Return the text of the space file that the study was run with. Raises RecordsError if it is not on record."""
    source = study["space"].get("source")
    if not isinstance(source, str):
        path = StudyPaths(folder).study_json
        raise RecordsError(f"{path} is damaged, it lacks space.source: restore it from a copy")
    return source


def encode_source(source: str) -> bytes:
    """Return a space file's text in the encoding that it declares, as Python reads it; UTF-8 by default."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source.encode()).readline)
    return source.encode(encoding)


def _read_recorded_words(folder: Path, study: Mapping[str, Any]) -> list[str]:
    command = str(study["provenance"].get("command", ""))
    words = shlex.split(command)
    for start in RUN_COMMANDS:
        if words[: len(start)] == start and len(words) > len(start):
            return words[len(start) :]
    raise InputError(
        f"{StudyPaths(folder).study_json} records the command {command!r}, which does not start with {RUN_COMMAND}: "
        "type the command that continues the study"
    )


def _parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Return the options in `words` by field of RunOptions, as text; a flag as True, a repeated option as a list."""
    context = click.Context(run.main, info_name=RUN_COMMAND, **run.main.context_settings)
    given, left, _ = run.main.make_parser(context).parse_args(list(words))
    if left:
        raise InputError(f"unexpected argument {left[0]!r}: give options of python -m study run")
    return {name: value for name, value in given.items() if isinstance(value, str | bool | list)}


def _make_absolute(options: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the options with relative paths resolved from `directory`."""
    paths = {option.name for option in run.main.params if isinstance(option.type, click.Path)}
    return {
        name: str(directory / Path(value).expanduser()) if name in paths and "://" not in value else value
        for name, value in options.items()
    }


def _find_start_directory(study: Mapping[str, Any]) -> Path:
    """Return the directory of the last run, to which its paths are relative; the current one if it is gone."""
    recorded = study["provenance"].get("cwd")
    return Path(recorded) if recorded and Path(recorded).is_dir() else Path.cwd()


def _find_first_change(old: str, new: str) -> str:
    for number, (before, after) in enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue=""), 1):
        if before != after:
            return f"first in line {number}: {before.strip()!r} → {after.strip()!r}"
    return "in its line ends"

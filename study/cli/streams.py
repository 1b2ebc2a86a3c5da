"""Standard streams that outlive their reader: a study whose output is no longer read trains on, as with `| head`.

Characters that the terminal's encoding lacks are written as escapes; streams that were closed lead nowhere.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

GONE = (errno.EPIPE, errno.EIO)
"""Errors of a pipe whose reader has ended, and of a terminal that was closed."""


class EnduringCommand(click.Command):
    """A command whose output streams outlive their reader."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        make_streams_endure()
        require_current_folder()
        return super().main(*args, **kwargs)


class EnduringGroup(EnduringCommand, click.Group):
    """A group of commands whose output streams outlive their reader."""


class _EnduringFile(io.FileIO):
    """A file whose content goes nowhere once nothing reads it."""

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except OSError as error:
            redirect_to_nothing(self.fileno())
            if error.errno not in GONE:  # such as a full disk: the study continues, but the loss is no secret
                with suppress(OSError):
                    os.write(2, f"output cannot be written ({error.strerror}) and is dropped from here on\n".encode())
            return memoryview(content).nbytes  # type: ignore[arg-type]


def make_streams_endure() -> None:
    """Replace this process's output streams, unless they are not files, as in a test or a notebook."""
    open_missing_streams()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, Path(os.devnull).open("w", errors="backslashreplace"))  # noqa: SIM115 (open as long as the process)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), _EnduringFile):
            continue
        try:
            if stream.fileno() != number:
                continue
        except OSError:  # a stream in memory
            continue
        stream.flush()
        buffer = io.BufferedWriter(_EnduringFile(number, "w", closefd=False))
        enduring = io.TextIOWrapper(
            buffer, stream.encoding, "backslashreplace", line_buffering=stream.isatty() or name == "stderr"
        )
        setattr(sys, name, enduring)


def require_current_folder() -> None:
    """Exit with code 2 where the current folder was deleted or may not be searched: most of Python then fails."""
    try:
        Path.cwd()
    except OSError as error:
        click.echo(f"error: the current folder cannot be used ({error.strerror}): change to another one", err=True)
        sys.exit(2)


def open_missing_streams() -> None:
    """Open the standard streams that are closed, so that no file of a study gets their numbers and their content."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            redirect_to_nothing(number)


def redirect_to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)

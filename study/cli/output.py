"""Output and errors, common to all commands."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console

from study.errors import InputError
from study.records.parquet_table import RecordsError

PATH_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)

WIDTH = 200
"""Columns of output that is no terminal, so that tables are not squeezed."""


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Print an error that the user can correct in one line, and exit with code 2; other errors pass."""
    try:
        yield
    except (InputError, RecordsError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # of a path that may not be used, or is none
        if error.errno not in PATH_ERRORS or error.filename is None:
            raise
        problem = f"{error.filename} cannot be used ({error.strerror})"
        click.echo(f"error: {problem}: give another path, or change its permissions", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def format_examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  python -m study {line}" for line in lines)


def to_json(value: Any) -> str:
    """Return JSON with paths and times as text."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def make_console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def format_bytes(size: float) -> str:
    """Return a size with its unit, such as "340 kB" or "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

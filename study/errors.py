"""The exception for input that cannot work, and the place in a user's code where another exception arose."""

from __future__ import annotations

import math
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
_NOT_USERS = (
    *(str(_PROJECT / package) for package in ("study", "trainables", "reports")),
    *(str(Path(path).resolve()) for path in sysconfig.get_paths().values()),
)
"""Folders of code that is not a user's: this project's packages, Python, and what is installed."""


class InputError(Exception):
    """Invalid input: the message states what was given, what is allowed and the way out.

    Printed as one line, also where it quotes another error's lines; the process exits with code 2.
    """

    def __str__(self) -> str:
        lines = (line.strip() for line in super().__str__().splitlines())
        return "; ".join(line for line in lines if line)


def check_whole_number(
    name: str, value: object, least: int = 1, most: int | None = None, *, or_none: bool = False
) -> None:
    """Raise InputError unless `value` is a whole number within these limits, or None where that is allowed."""
    if or_none and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= (value if most is None else most):
        limits = f"at least {least}" + (f" and at most {most:,}" if most is not None else "")
        raise InputError(f"{name} is {value!r}; allowed is a whole number, {limits}{', or None' if or_none else ''}")


def check_positive(name: str, value: object, allowed: str, most: float = math.inf) -> None:
    """Raise InputError unless `value` is a finite number above 0 and at most `most`; `allowed` names these limits."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most or value == math.inf:
        raise InputError(f"{name} is {value!r}; allowed is {allowed}")


def find_user_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Return the innermost frame of an exception that lies in a user's file; None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)


def format_place(error: BaseException) -> str:
    """Return " (losses.py, line 12)", the place in a user's file where an exception arose; empty if there is none."""
    frame = find_user_frame(error)
    return f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""


def format_first_line(error: BaseException) -> str:
    """Return "ValueError: message" with the first line of an error's message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def join_lines(message: object, most: int = 400) -> str:
    """Return a message in one line of at most this many characters: some of Ray's fill a screen."""
    return " ".join(str(message).split())[:most]


@contextmanager
def explain_user_errors() -> Iterator[None]:
    """Raise an exception of a user's code as an InputError of one line with its file and line; others pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not (place := format_place(error)):
            raise
        raise InputError(f"{format_first_line(error)}{place}") from error


def _is_users(file: str) -> bool:
    path = Path(file)
    return not file.startswith("<") and not any(path.resolve().is_relative_to(folder) for folder in _NOT_USERS)

"""Plain JSON descriptions of study objects: what a study *is*, for identity, for the record, for a diff.

Everything a space file names is a frozen dataclass, a number, a string or a collection of these. Its
description is what gets hashed into a trial's id, stored in study.json and compared on resume. A field that
says where something lies, not what it is (a data folder), opts out with `field(metadata=LOCATION)`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from study.code_version import PACKAGES, SPACE_FILE, digest_code, digest_text
from study.errors import InputError

LOCATION = {"identity": False}
"""Metadata of a dataclass field that is not part of an object's identity, such as a path."""

LIMIT = {"identity": False}
"""Metadata of a field that says how long one may go on, not what is computed."""

SOURCE_ATTRIBUTE = "__source_digest__"
"""The attribute in which a class from outside the installed packages carries the digest of its code."""

SOURCE_CHANGE = re.compile(r'(^|\.)source: "\w{16}" → "\w{16}"$')
"""A line of `differences` that only says that a class has other code."""

PUBLIC_NAME_ATTRIBUTE = "__public_name__"
"""The attribute by which a class that is renamed keeps its former name in descriptions, and so in ids and keys."""


def describe(value: Any) -> Any:
    """Return `value` as JSON-ready data; a dataclass becomes {"is": class, "from": origin, field: …}.

    The origin is the top-level package of an installed class, so that its module may move, "space file" for a class
    of a space file, and else its module.

    Raises InputError for anything whose description would not identify it (a function, an array).
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = (f for f in dataclasses.fields(value) if f.metadata.get("identity", True))
        return _describe_class(type(value)) | {f.name: describe(getattr(value, f.name)) for f in named}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    raise InputError(
        f"{value!r} ({type(value).__name__}) cannot be part of a study: "
        "allowed are Python's own numbers and strings, and frozen dataclasses of these"
    )


def get_public_name(kind: type) -> str:
    """Return the name under which a class is described."""
    return str(vars(kind).get(PUBLIC_NAME_ATTRIBUTE, kind.__qualname__))


def _describe_class(kind: type) -> dict[str, str]:
    package = kind.__module__.split(".")[0]
    if package in PACKAGES:
        return {"is": get_public_name(kind), "from": package}
    origin = SPACE_FILE if package.startswith(SPACE_FILE) else kind.__module__
    named = {"is": get_public_name(kind), "from": origin}
    # a class of the user's own is not versioned with this project: its code is part of what it is
    source = _digest_source(kind)
    return named | {"source": source} if source else named


def _digest_source(kind: type) -> str:
    """Return the digest of a class's code, empty where its text cannot be found.

    It is kept in the class: a worker that gets the class by value does not have its text.
    """
    if SOURCE_ATTRIBUTE not in vars(kind):
        try:
            source = digest_code(textwrap.dedent(inspect.getsource(kind)).encode())
        except (OSError, TypeError):
            source = ""
        setattr(kind, SOURCE_ATTRIBUTE, source)
    return str(vars(kind)[SOURCE_ATTRIBUTE])


def to_canonical_json(value: Any) -> str:
    """The one JSON text of a description: sorted keys, no white space."""
    return json.dumps(describe(value), sort_keys=True, separators=(",", ":"))


def digest(*values: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the values' descriptions."""
    return digest_text(to_canonical_json(values))


def find_differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """One line `path: old → new` for each leaf in which two descriptions differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from find_differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from find_differences(left, right, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {json.dumps(old)} → {json.dumps(new)}"


def derive_seed(*names: Any) -> int:
    """A seed in [0, 2^63) that follows from the names alone: the study's seed and what the seed is for."""
    return int(digest(*names), 16) >> 1

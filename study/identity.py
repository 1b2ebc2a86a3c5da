"""Descriptions of study objects as plain JSON, and digests of them: the identity of studies, trials and teachers.

Everything in a space file is a frozen dataclass, a number, a string or a collection of these. Its description is hashed
into a trial's id, stored in study.json and compared on resume. A field that holds the location of something, such as a
data folder, is left out by `field(metadata=LOCATION)`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from study.code_version import PACKAGES, SPACE_FILE, digest_code, digest_text
from study.errors import InputError

LOCATION = {"identity": False}
"""Metadata of a field that is not part of an object's identity, such as a path."""

IF_SET = {"identity": "if set"}
"""Metadata of a field that is part of an object's identity unless it is None: one younger than recorded studies, whose
ids and keys it leaves as they are."""

LIMIT = {"identity": False}
"""Metadata of a field that limits how long a study may run; it does not change what is computed."""

SOURCE_ATTRIBUTE = "__source_digest__"
"""Attribute that holds the digest of the code of a class from outside the installed packages."""

SOURCE_CHANGE = re.compile(r'(^|\.)source: "\w{16}" → "\w{16}"$')
"""Matches a line of `find_differences` by which only the code of a class differs."""

PUBLIC_NAME_ATTRIBUTE = "__public_name__"
"""Attribute by which a renamed class keeps its former name in descriptions, and so in ids and keys."""


Defined = type | FunctionType


def describe(value: Any) -> Any:
    """Return `value` as JSON-ready data; a dataclass becomes {"is": class, "from": origin, field: …}, a function too.

    The origin is the top-level package of an installed class, whose module may therefore move, "space file" for a
    class of a space file, and the module of any other class.

    Raises InputError for anything whose description would not identify it (an inner function, an array).
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field for field in dataclasses.fields(value) if is_described(field, value)]
        return _describe_class(type(value)) | {field.name: describe(getattr(value, field.name)) for field in fields}
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return _describe_class(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    raise InputError(
        f"{value!r} ({type(value).__name__}) cannot be part of a study: "
        "allowed are Python's own numbers and strings, and frozen dataclasses of these; convert it, or leave it out"
    )


def is_described(field: dataclasses.Field[Any], owner: Any) -> bool:
    """Return whether a field is part of its owner's identity."""
    identity = field.metadata.get("identity", True)
    return getattr(owner, field.name) is not None if identity == IF_SET["identity"] else bool(identity)


def get_public_name(kind: Defined) -> str:
    """Return the name under which a class or a function is described."""
    return str(vars(kind).get(PUBLIC_NAME_ATTRIBUTE, kind.__qualname__))


def _describe_class(kind: Defined) -> dict[str, str]:
    package = kind.__module__.split(".")[0]
    if package in PACKAGES:
        return {"is": get_public_name(kind), "from": package}
    origin = SPACE_FILE if package.startswith(SPACE_FILE) else kind.__module__
    names = {"is": get_public_name(kind), "from": origin}
    # a user's class is not versioned with this project, so its code is part of its identity
    source = _digest_source(kind)
    return names | {"source": source} if source else names


def _digest_source(kind: Defined) -> str:
    """Return the digest of the code of a class or a function; empty if its source file cannot be found.

    It is kept there: a worker that receives the class by value has no source file.
    """
    if SOURCE_ATTRIBUTE not in vars(kind):
        try:
            source = digest_code(textwrap.dedent(inspect.getsource(kind)).encode())
        except (OSError, TypeError):
            source = ""
        setattr(kind, SOURCE_ATTRIBUTE, source)
    return str(vars(kind)[SOURCE_ATTRIBUTE])


def to_canonical_json(value: Any) -> str:
    """Return the description as JSON with sorted keys and without white space."""
    return json.dumps(describe(value), sort_keys=True, separators=(",", ":"))


def digest(*values: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the values' descriptions."""
    return digest_text(to_canonical_json(values))


def find_origins(described: Any) -> set[str]:
    """Return the origins of all classes and functions in a description."""
    items = described.values() if isinstance(described, dict) else described if isinstance(described, list) else ()
    own = {described["from"]} if isinstance(described, dict) and {"is", "from"} <= described.keys() else set[str]()
    return own.union(*map(find_origins, items))


def find_differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield a line `path: old → new` for each leaf in which two descriptions differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from find_differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from find_differences(left, right, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {json.dumps(old)} → {json.dumps(new)}"


def derive_seed(*names: Any) -> int:
    """Return a seed in [0, 2^63) derived from `names` alone: the seed of the study and the purpose of the new one."""
    return int(digest(*names), 16) >> 1

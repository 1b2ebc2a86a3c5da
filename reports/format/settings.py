"""A study's description (study/identity.py) as nested settings to read, and the search domains it contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reports.format.values import format_value

MAX_LINE = 90
"""Most characters of a setting shown on one line; a longer one becomes a list of its parts."""


@dataclass(frozen=True)
class Setting:
    """An entry of a description: its name, its value as one line, and its parts if they do not fit on the line."""

    name: str
    text: str
    parts: tuple[Setting, ...] = ()


CLASS_KEYS = ("is", "from", "source")
"""Keys with which a description names its class; see study/identity.py."""


def list_settings(
    description: dict[str, Any], leave_out: tuple[str, ...] = (*CLASS_KEYS, "name", "question")
) -> tuple[Setting, ...]:
    """Return the entries of a description in its order, without those that are not set."""
    return tuple(
        _make_setting(key, value) for key, value in description.items() if key not in leave_out and value is not None
    )


def find_domains(description: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every searched domain with the dotted name under which trials record its value (study/space)."""
    if isinstance(description, list):
        for index, item in enumerate(description):
            yield from find_domains(item, _join_path(path, index))
    elif isinstance(description, dict):
        if description.get("is") in ("Uniform", "Integer", "Choice"):
            yield path, description
        parts = description
        if description.get("is") == "Choice":
            parts = dict(zip(description.get("labels", ()), description.get("options", ()), strict=False))
        for key, item in parts.items():
            yield from find_domains(item, _join_path(path, key))


def _make_setting(name: str, value: Any) -> Setting:
    text = describe(value)
    if len(text) <= MAX_LINE or not isinstance(value, dict | list):
        return Setting(name, text)
    if isinstance(value, dict):
        return Setting(name, str(value.get("is", "")), list_settings(value, CLASS_KEYS))
    return Setting(name, "", tuple(_make_item(index, item) for index, item in enumerate(value)))


def _make_item(index: int, item: Any) -> Setting:
    """Return an entry of a list under its own name if it has one, as arms and students do, else under its index."""
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return _make_setting(item["name"], {key: value for key, value in item.items() if key != "name"})
    return _make_setting(str(index), item)


def describe(value: Any) -> str:
    """Return a description as one line, similar to its form in a space file."""
    if isinstance(value, list):
        return ", ".join(describe(item) for item in value) or "none"
    if not isinstance(value, dict):
        return format_value(value) if value != "" else "–"
    kind, fields = value.get("is"), {key: item for key, item in value.items() if key not in CLASS_KEYS}
    if kind in ("Uniform", "Integer"):
        scale = ", logarithmic" if fields.get("log") else ""
        integer = "whole, " if kind == "Integer" else ""
        return f"searched: {integer}{describe(fields.get('low'))} to {describe(fields.get('high'))}{scale}"
    if kind == "Choice":
        return f"searched: one of {_describe_options(fields)}"
    inner = ", ".join(f"{key} {_describe_nested(item)}" for key, item in fields.items())
    return f"{kind} ({inner})" if kind and inner else str(kind or inner or "none")


def _describe_options(choice: dict[str, Any]) -> str:
    pairs = zip(choice.get("labels", ()), choice.get("options", ()), strict=False)
    return ", ".join(
        format_value(label) + (f" = {_describe_nested(option)}" if option != label else "") for label, option in pairs
    )


def _describe_nested(value: Any) -> str:
    return f"[{describe(value)}]" if isinstance(value, list) else describe(value)


def _join_path(path: str, key: Any) -> str:
    return ".".join(part for part in (path, str(key)) if part)

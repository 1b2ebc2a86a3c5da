"""A study's description (study/identity.py) as a nested list for people, and the domains it contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reports.format.values import format_value

LINE = 90
"""Characters up to which a setting is written on one line instead of as a list of its parts."""


@dataclass(frozen=True)
class Setting:
    """One entry: its name, what it is in one line, and its parts where one line does not hold them."""

    name: str
    text: str
    parts: tuple[Setting, ...] = ()


CLASS = ("is", "from", "source")
"""The entries by which a description names its class; see study/identity.py."""


def list_settings(
    description: dict[str, Any], leave_out: tuple[str, ...] = (*CLASS, "name", "question")
) -> tuple[Setting, ...]:
    """The entries of a description, in its order."""
    return tuple(_setting(key, value) for key, value in description.items() if key not in leave_out)


def find_domains(description: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every searched domain with the dotted name under which trials record its value, as study.space names them."""
    if isinstance(description, list):
        for index, item in enumerate(description):
            yield from find_domains(item, _join(path, index))
    elif isinstance(description, dict):
        if description.get("is") in ("Uniform", "Integer", "Choice"):
            yield path, description
        parts = description
        if description.get("is") == "Choice":
            parts = dict(zip(description.get("labels", ()), description.get("options", ()), strict=False))
        for key, item in parts.items():
            yield from find_domains(item, _join(path, key))


def _setting(name: str, value: Any) -> Setting:
    text = describe(value)
    if len(text) <= LINE or not isinstance(value, dict | list):
        return Setting(name, text)
    if isinstance(value, dict):
        return Setting(name, str(value.get("is", "")), list_settings(value, CLASS))
    return Setting(name, "", tuple(_named(index, item) for index, item in enumerate(value)))


def _named(index: int, item: Any) -> Setting:
    """An entry of a list under its own name, where it has one: arms and students do."""
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return _setting(item["name"], {key: value for key, value in item.items() if key != "name"})
    return _setting(str(index), item)


def describe(value: Any) -> str:
    """A description in one line, close to how a space file writes it."""
    if isinstance(value, list):
        return ", ".join(describe(item) for item in value) or "none"
    if not isinstance(value, dict):
        return format_value(value) if value != "" else "–"
    kind, fields = value.get("is"), {key: item for key, item in value.items() if key not in CLASS}
    if kind in ("Uniform", "Integer"):
        scale = ", logarithmic" if fields.get("log") else ""
        whole = "whole, " if kind == "Integer" else ""
        return f"searched: {whole}{describe(fields.get('low'))} to {describe(fields.get('high'))}{scale}"
    if kind == "Choice":
        return f"searched: one of {_options(fields)}"
    inner = ", ".join(f"{key} {_nested(item)}" for key, item in fields.items())
    return f"{kind} ({inner})" if kind and inner else str(kind or inner or "none")


def _options(choice: dict[str, Any]) -> str:
    pairs = zip(choice.get("labels", ()), choice.get("options", ()), strict=False)
    return ", ".join(
        format_value(label) + (f" = {_nested(option)}" if option != label else "") for label, option in pairs
    )


def _nested(value: Any) -> str:
    return f"[{describe(value)}]" if isinstance(value, list) else describe(value)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)

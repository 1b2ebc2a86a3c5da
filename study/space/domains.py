"""Parameter domains, and the functions that find them in a tree of objects and replace them by values.

Any field of a loss, a recipe or a student may be a constant, a domain, or an object whose own fields are domains. An
option of `choice` may itself contain domains: they are conditional, proposed only when that option is chosen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from numbers import Integral, Real
from typing import Any

from study.errors import InputError

Value = float | int | str | bool | None

ROOT_CHOICE = "method"
"""The name of a choice at the root of a tree: an arm that chooses between losses."""

LARGEST_INTEGER = 2**53
"""Of the whole numbers up to here floating point, JSON and other programs read each exactly."""

UNNAMED = {"named": False}
"""Metadata of a field whose domains are named as if they stood in its parent."""


class _Named:
    """A domain in the name of a student: f"resnet8w{width}" is "resnet8w{4..16}", whatever the format."""

    def __format__(self, _: str) -> str:
        return str(self)


@dataclasses.dataclass(frozen=True)
class Uniform(_Named):
    """A real number from `low` to `high`, uniform on a linear scale, or on a logarithmic one with `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self)

    def __str__(self) -> str:
        return f"{{{self.low:g}..{self.high:g}}}"


@dataclasses.dataclass(frozen=True)
class Integer(_Named):
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise InputError(f"integer({self.low}, {self.high}): bounds must be whole numbers; use uniform for reals")
        _check_range(self)

    def __str__(self) -> str:
        return f"{{{self.low}..{self.high}}}"


@dataclasses.dataclass(frozen=True)
class Choice(_Named):
    """One of several labelled options, each of which may contain further domains."""

    labels: tuple[Value, ...]
    options: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{{{','.join(map(str, self.labels))}}}"

    def find_option(self, label: Value) -> Any:
        return self.options[self.labels.index(label)]


Domain = Uniform | Integer | Choice


# The constructors return Any, so that a domain type-checks wherever a space file may write a number.
def uniform(low: float, high: float) -> Any:
    """Return the domain of real numbers from `low` to `high`, uniform on a linear scale."""
    return Uniform(low, high)


def log_uniform(low: float, high: float) -> Any:
    """Return the domain of real numbers from `low` to `high`, uniform on a logarithmic scale; `low` > 0."""
    return Uniform(low, high, log=True)


def integer(low: int, high: int, *, log: bool = False) -> Any:
    """Return the domain of whole numbers from `low` to `high`, both included."""
    return Integer(low, high, log)


def choice(*options: Any, **named: Any) -> Any:
    """Return the domain of these options; objects are labelled by their class, keyword options by their keyword.

    Examples: `choice("linear", "cosine")`, `choice(off=0.0, staircase=Staircase(0.0, uniform(0.1, 0.5)))`.
    """
    options = tuple(map(_to_builtin, options))
    labels = (*(option if isinstance(option, Value) else type(option).__name__ for option in options), *named)
    if not labels:
        raise InputError("choice() has no options: name at least one")
    if not named and len(options) == 1 and isinstance(options[0], list | tuple):
        raise InputError(f"choice({options[0]!r}) has a single option, which is a list: write choice(*{options[0]!r})")
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise InputError(f"choice has two options called {label!r}: name them, choice(a=…, b=…)")
        if label != label or (isinstance(label, int) and abs(label) > LARGEST_INTEGER):
            raise InputError(f"choice has the option {label}: allowed are numbers, and whole ones within ±2^53")
    return Choice(labels, options + tuple(named.values()))


def find_domains(tree: Any, path: str = "") -> Iterator[tuple[str, Domain]]:
    """Yield each domain in `tree` with its name, a dotted path of fields; conditional ones below their option."""
    if isinstance(tree, Domain):
        yield path or ROOT_CHOICE, tree
    for key, item in list_children(tree):
        yield from find_domains(item, join_path(path, key))


def is_unresolved(tree: Any) -> bool:
    """Return whether `tree` is or contains a domain, so that it must be resolved before it is checked or used."""
    return next(find_domains(tree), None) is not None


def visit_domains(tree: Any, pick: Callable[[str, Domain], Value], path: str = "") -> None:
    """Call `pick(name, domain)` for each domain in `tree`, descending only into the options it picks."""
    if isinstance(tree, Choice):
        label = pick(path or ROOT_CHOICE, tree)
        visit_domains(tree.find_option(label), pick, join_path(path, label))
    elif isinstance(tree, Domain):
        pick(path, tree)
    else:
        for key, item in list_children(tree):
            visit_domains(item, pick, join_path(path, key))


def resolve(tree: Any, pick: Callable[[str, Domain], Value], path: str = "") -> Any:
    """Return `tree` with each domain replaced by `pick(name, domain)`, a choice by the option with the picked label."""
    if isinstance(tree, Choice):
        label = pick(path or ROOT_CHOICE, tree)
        return resolve(tree.find_option(label), pick, join_path(path, label))
    if isinstance(tree, Domain):
        return pick(path, tree)
    items = {key: resolve(item, pick, join_path(path, key)) for key, item in list_children(tree)}
    if not items or not is_unresolved(tree):
        return tree
    if isinstance(tree, Mapping):
        return items
    if isinstance(tree, list | tuple):
        return type(tree)(items.values())
    names = (field.name for field in dataclasses.fields(tree) if field.init)
    return type(tree)(**dict(zip(names, items.values(), strict=True)))


def resolve_params(tree: Any, params: Mapping[str, Value], path: str = "") -> Any:
    """Return `tree`, found at `path`, with its domains replaced by `params`. Raises InputError if they lack one."""

    def pick(name: str, _: Domain) -> Value:
        if name not in params:
            raise InputError(f"no value for parameter {name!r}; recorded are: {', '.join(params) or 'none'}")
        return params[name]

    return resolve(tree, pick, path)


def resolve_corners(tree: Any) -> Iterator[Any]:
    """Yield `tree` resolved at both ends of its domains and under every option, which runs all range checks.

    Equal ones are yielded once.
    """
    corners: list[Any] = []
    for labels, end in product(_cover_options(tree, ""), ("low", "high")):
        corner = resolve(tree, partial(_pick_corner, labels, end))
        if corner not in corners:
            corners.append(corner)
            yield corner


def _pick_corner(labels: Mapping[str, Value], end: str, name: str, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        return labels[name]
    # of the type that a search proposes, so that a whole number which is searched by uniform is refused
    return (int if isinstance(domain, Integer) else float)(getattr(domain, end))


def _cover_options(tree: Any, path: str) -> list[dict[str, Value]]:
    """Return assignments of labels to the choices in `tree` in which every option occurs, not all combinations."""
    if isinstance(tree, Choice):
        return [
            {path or ROOT_CHOICE: label} | below
            for label, option in list_children(tree)
            for below in _cover_options(option, join_path(path, label))
        ]
    parts = [_cover_options(item, join_path(path, key)) for key, item in list_children(tree)]
    most = max((len(part) for part in parts), default=1)
    return [{name: label for part in parts for name, label in part[n % len(part)].items()} for n in range(most)]


def list_children(tree: Any) -> list[tuple[Value, Any]]:
    """Return the items of `tree` by field, key, position or label; none for a leaf. An UNNAMED field has the key ""."""
    if isinstance(tree, Choice):
        return list(zip(tree.labels, tree.options, strict=True))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [
            (field.name if field.metadata.get("named", True) else "", getattr(tree, field.name))
            for field in dataclasses.fields(tree)
            if field.init
        ]
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    return []


def join_path(path: str, key: Value) -> str:
    """Return the dotted path of an item of the object at `path`."""
    return ".".join(part for part in (path, str(key)) if part)


def _to_builtin(option: Any) -> Any:
    """Return a number of NumPy as Python's own, which its JSON and its labels need; anything else as it is."""
    if isinstance(option, Integral) and not isinstance(option, bool):
        return int(option)
    return float(option) if isinstance(option, Real) and not isinstance(option, int) else option


def _check_range(domain: Uniform | Integer) -> None:
    name = type(domain).__name__.lower()
    call = f"{'log_' if domain.log and name == 'uniform' else ''}{name}({domain.low}, {domain.high})"
    if not (math.isfinite(domain.low) and math.isfinite(domain.high) and math.isfinite(domain.high - domain.low)):
        raise InputError(f"{call}: both ends, and their difference, must be finite numbers")
    if isinstance(domain, Integer) and max(abs(domain.low), abs(domain.high)) > LARGEST_INTEGER:
        raise InputError(f"{call}: both ends must lie within ±2^53")
    if not domain.low < domain.high:
        raise InputError(f"{call} is empty or reversed: low must be below high; write a single value without a domain")
    if domain.log and domain.low <= 0:
        raise InputError(f"{call} on a logarithmic scale: low must be above 0")

"""Parameter domains, and how a tree that contains domains becomes one that contains values.

Any field of a loss may be a constant, a domain, or an object whose own fields are domains. An option of
`choice` may itself contain domains: they are proposed only when that option is chosen, which is all there is
to conditional groups. This file knows nothing of samplers; study/search/searcher.py turns domains into proposals.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from study.errors import InputError

Value = float | int | str | bool | None

ROOT_CHOICE = "method"
"""The name of a choice that is not a field of anything: an arm that chooses between losses."""


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A real number between `low` and `high`, evenly on a linear scale, or a logarithmic one with `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self)


@dataclasses.dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise InputError(f"integer({self.low}, {self.high}): bounds must be whole numbers; use uniform for reals")
        _check_range(self)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several named options, of which each may contain domains of its own."""

    labels: tuple[Value, ...]
    options: tuple[Any, ...]

    def option(self, label: Value) -> Any:
        return self.options[self.labels.index(label)]


Domain = Uniform | Integer | Choice


# The constructors return Any so that a domain may stand wherever a space file would write a number.
def uniform(low: float, high: float) -> Any:
    """A real number, uniform between `low` and `high`."""
    return Uniform(low, high)


def log_uniform(low: float, high: float) -> Any:
    """A real number whose logarithm is uniform between those of `low` and `high`; `low` > 0."""
    return Uniform(low, high, log=True)


def integer(low: int, high: int, *, log: bool = False) -> Any:
    """A whole number from `low` to `high`, both included."""
    return Integer(low, high, log)


def choice(*options: Any, **named: Any) -> Any:
    """One of the options; those with settings of their own are labelled by class, or by keyword.

    `choice("linear", "cosine")` and `choice(off=0.0, staged=Stages(0.0, uniform(0.1, 0.5)))` are both fine.
    """
    labels = tuple(_label(option) for option in options) + tuple(named)
    if not labels:
        raise InputError("choice() has no options: name at least one")
    if len(set(labels)) < len(labels):
        raise InputError(f"choice has two options called {_repeated(labels)!r}: name them, choice(a=…, b=…)")
    return Choice(labels, options + tuple(named.values()))


def is_domain(value: Any) -> bool:
    return isinstance(value, Uniform | Integer | Choice)


def find_domains(tree: Any, path: str = "") -> Iterator[tuple[str, Domain]]:
    """Every domain in `tree` with its name, a dotted path of fields; conditional ones below their option."""
    if isinstance(tree, Choice):
        yield path or ROOT_CHOICE, tree
        for label, option in zip(tree.labels, tree.options, strict=True):
            yield from find_domains(option, join_path(path, label))
    elif is_domain(tree):
        yield path, tree
    else:
        for key, item in list_children(tree):
            yield from find_domains(item, join_path(path, key))


def visit_domains(tree: Any, pick: Callable[[str, Domain], Value], path: str = "") -> None:
    """Call `pick(name, domain)` for each domain in `tree`, following the options it picks; nothing is built."""
    if isinstance(tree, Choice):
        label = pick(path or ROOT_CHOICE, tree)
        visit_domains(tree.option(label), pick, join_path(path, label))
    elif is_domain(tree):
        pick(path, tree)
    else:
        for key, item in list_children(tree):
            visit_domains(item, pick, join_path(path, key))


def resolve(tree: Any, pick: Callable[[str, Domain], Value], path: str = "") -> Any:
    """`tree` with each domain replaced by what `pick(name, domain)` returns; of a choice, by the option so labelled."""
    if isinstance(tree, Choice):
        label = pick(path or ROOT_CHOICE, tree)
        return resolve(tree.option(label), pick, join_path(path, label))
    if is_domain(tree):
        return pick(path, tree)
    items = {key: resolve(item, pick, join_path(path, key)) for key, item in list_children(tree)}
    if not items or next(find_domains(tree), None) is None:
        return tree
    if isinstance(tree, Mapping):
        return items
    if isinstance(tree, list | tuple):
        return type(tree)(items.values())
    return type(tree)(**{str(name): item for name, item in items.items()})


def resolve_params(tree: Any, params: Mapping[str, Value]) -> Any:
    """`tree` with its domains replaced by recorded parameters.

    Raises InputError if `params` lacks a name that the tree asks for.
    """

    def recorded(name: str, _: Domain) -> Value:
        if name not in params:
            raise InputError(f"no value for parameter {name!r}; recorded are: {', '.join(params) or 'none'}")
        return params[name]

    return resolve(tree, recorded)


def resolve_corners(tree: Any) -> Iterator[Any]:
    """`tree` at both ends of its domains, under every option of every choice: what meets every range check."""
    for labels in _cover_options(tree, ""):
        for end in ("low", "high"):

            def at_end(name: str, domain: Domain, labels: dict[str, Value] = labels, end: str = end) -> Value:
                return labels[name] if isinstance(domain, Choice) else getattr(domain, end)

            yield resolve(tree, at_end)


def _cover_options(tree: Any, path: str) -> list[dict[str, Value]]:
    """Labels for the choices in `tree`, by name, so that each option occurs; side by side, not in every combination."""
    if isinstance(tree, Choice):
        options = zip(tree.labels, tree.options, strict=True)
        return [
            {path or ROOT_CHOICE: label} | below
            for label, option in options
            for below in _cover_options(option, join_path(path, label))
        ]
    parts = [_cover_options(item, join_path(path, key)) for key, item in list_children(tree)]
    most = max((len(part) for part in parts), default=1)
    return [{name: label for part in parts for name, label in part[n % len(part)].items()} for n in range(most)]


def list_children(tree: Any) -> list[tuple[Value, Any]]:
    """What `tree` is made of, by name: fields, keys or positions; nothing for a leaf."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree) if field.init]
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    return []


def join_path(path: str, key: Value) -> str:
    """The path of what lies below `path`."""
    return f"{path}.{key}" if path else str(key)


def _label(option: Any) -> Value:
    return option if option is None or isinstance(option, bool | int | float | str) else type(option).__name__


def _repeated(labels: tuple[Value, ...]) -> Value:
    return next(label for index, label in enumerate(labels) if label in labels[:index])


def _check_range(domain: Uniform | Integer) -> None:
    name = type(domain).__name__.lower()
    call = f"{'log_' if domain.log and name == 'uniform' else ''}{name}({domain.low}, {domain.high})"
    if not (math.isfinite(domain.low) and math.isfinite(domain.high)):
        raise InputError(f"{call}: both ends must be finite numbers")
    if not domain.low < domain.high:
        raise InputError(f"{call} is empty or reversed: low must be below high; for one value write it plainly")
    if domain.log and domain.low <= 0:
        raise InputError(f"{call} on a logarithmic scale: low must be above 0")

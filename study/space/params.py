"""Points of a search space: read from a concrete object, checked, compared, or listed as a grid.

A point holds the parameters that a trial records, by domain name, without those of options that are not chosen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from study.errors import InputError
from study.space.domains import (
    ROOT_CHOICE,
    Choice,
    Domain,
    Integer,
    Uniform,
    Value,
    is_unresolved,
    join_path,
    list_children,
    visit_domains,
)

Params = Mapping[str, Value]


# -- reading a point ---------------------------------------------------------------------------------------------------


def read_params(space: Any, given: Any, path: str = "") -> dict[str, Value]:
    """Return the parameters with which `resolve_params` turns `space` into the concrete object `given`.

    An option of a choice is recognised by its value, its label, or its class and content; the first match counts.
    Raises InputError naming the field that lies outside, its value and what is allowed.
    """
    if isinstance(space, Choice):
        return _read_choice(space, given, path)
    if isinstance(space, Domain):
        return {path: check_value(space, given, path)}
    parts = dict(list_children(space))
    if parts and (type(given) is not type(space) or dict(list_children(given)).keys() != parts.keys()):
        raise InputError(f"{path or 'the loss'} is {given!r}; the search space has a {type(space).__name__} there")
    if not parts and (given != space or isinstance(given, bool) != isinstance(space, bool)):
        raise InputError(f"{path or 'the loss'} is {given!r}; the search space has {space!r} there, fixed")
    params: dict[str, Value] = {}
    for key, item in list_children(given):
        params |= read_params(parts[key], item, join_path(path, key))
    return params


def _read_choice(space: Choice, given: Any, path: str) -> dict[str, Value]:
    errors: list[InputError] = []
    for label, option in list_children(space):
        try:
            return {path or ROOT_CHOICE: label} | read_params(option, given, join_path(path, label))
        except InputError as error:
            if type(option) is type(given) and list_children(option):
                errors.append(error)
    if _is_one_of(given, space.labels) and not is_unresolved(space.find_option(given)):
        return {path or ROOT_CHOICE: check_value(space, given, path)}
    if len(errors) == 1:
        raise errors[0]
    raise InputError(f"{path or 'the loss'} is {given!r}; allowed is one of {_join_labels(space.labels)}")


def check_value(domain: Domain, value: Any, name: str) -> Value:
    """Return `value` in the type that the domain proposes.

    Raises InputError if it lies outside the domain.
    """
    if isinstance(domain, Choice):
        if not _is_one_of(value, domain.labels):
            raise InputError(f"{name} is {value!r}; allowed is one of {_join_labels(domain.labels)}")
        return domain.labels[domain.labels.index(value)]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(domain, Integer)
    if not (number and domain.low <= value <= domain.high) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {value!r}; allowed is {kind} from {domain.low} to {domain.high}")
    return int(value) if whole else float(value)


def is_point_of(space: Any, params: Params) -> bool:
    """Return whether `params` hold a value of each domain that applies, and nothing else."""
    names: set[str] = set()

    def pick(name: str, domain: Domain) -> Value:
        names.add(name)
        if name not in params:
            raise InputError(f"no value for parameter {name!r}")
        return check_value(domain, params[name], name)

    try:
        visit_domains(space, pick)
    except InputError:
        return False
    return names == params.keys()


def is_same_point(one: Params, other: Params) -> bool:
    """Return whether two points are equal, up to rounding of numbers."""
    return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())


def merge_first_points(first: Sequence[Params], further: Sequence[Params]) -> list[Params]:
    """Return `first`, followed by the points of `further` that are not among them."""
    return [*first, *(point for point in further if not any(is_same_point(point, known) for known in first))]


def format_setting(value: object) -> str:
    """Return the value of a parameter as text, a float with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _equal(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def _is_one_of(value: Any, labels: tuple[Value, ...]) -> bool:
    # in Python True equals 1, but they are different labels
    return any(value == label and isinstance(value, bool) == isinstance(label, bool) for label in labels)


def _join_labels(labels: tuple[Value, ...]) -> str:
    return ", ".join(map(str, labels))


# -- a grid ------------------------------------------------------------------------------------------------------------


def build_grid(space: Any, points: int, path: str = "") -> list[dict[str, Value]]:
    """Return all combinations of the domains' levels; each option of a choice has a grid of its own."""
    if isinstance(space, Choice):
        return [
            {path or ROOT_CHOICE: label} | below
            for label, option in list_children(space)
            for below in build_grid(option, points, join_path(path, label))
        ]
    if isinstance(space, Uniform | Integer):
        return [{path: level} for level in list_levels(space, points)]
    parts = [build_grid(item, points, join_path(path, key)) for key, item in list_children(space)]
    return [{name: value for part in point for name, value in part.items()} for point in itertools.product(*parts)]


def count_grid_points(space: Any, points: int) -> int:
    """Return the number of points of `build_grid`, without building it."""
    if isinstance(space, Choice):
        return sum(count_grid_points(option, points) for option in space.options)
    if isinstance(space, Uniform | Integer):
        return len(list_levels(space, points))
    return math.prod(count_grid_points(item, points) for _, item in list_children(space))


def count_points(space: Any) -> float:
    """Return the number of distinct points of a space; infinity if it has a domain of real numbers."""
    if isinstance(space, Choice):
        return sum(count_points(option) for option in space.options)
    if isinstance(space, Integer):
        return space.high - space.low + 1
    if isinstance(space, Domain):
        return math.inf
    return math.prod(count_points(item) for _, item in list_children(space))


def list_levels(domain: Uniform | Integer, points: int) -> list[Value]:
    """Return `points` values evenly spaced on the domain's scale, both ends included; of few whole numbers, all."""
    import numpy as np  # here, so that `from study import …` is quick

    if isinstance(domain, Integer) and domain.high - domain.low < points:
        return list(range(int(domain.low), int(domain.high) + 1))
    spaced = (np.geomspace if domain.log else np.linspace)(domain.low, domain.high, points).tolist()
    return sorted({round(value) for value in spaced}) if isinstance(domain, Integer) else spaced

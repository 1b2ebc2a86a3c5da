"""Costs of students, such as MACs and latency, as objectives and limits of a search.

The first value on record counts as a student's cost: a latency that is measured again differs, and a resumed study
would choose differently. Rows of all later trials of that student hold the same value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from study.errors import InputError, check_positive, explain_user_errors
from study.identity import digest
from study.records.rows import is_finite
from study.space.domains import (
    Choice,
    Domain,
    Integer,
    Value,
    is_unresolved,
    resolve,
    resolve_corners,
    resolve_params,
)
from study.space.params import build_grid, count_points
from study.study import Study
from study.task import EXACT_COSTS
from study.trial import EpochResult, Trial, TrialContext

STUDENTS_TRIED = 64
"""Students of a domain that are tried for one within the limits: all of a small domain, a random sample of a large one.
Building each takes up to a second."""


class StudentCosts:
    """The costs of each student of a study that are known so far."""

    def __init__(self, study: Study):
        self._study = study
        self._known: dict[str, dict[str, float]] = {}
        """Costs by name, by the digest of a student's description."""

    def find(self, trial: Trial) -> dict[str, float]:
        """Return the known costs of a trial's student; none of a preparation's."""
        if not self._study.costs or trial.phase == "prepare":
            return {}
        return self._known.get(_get_key(trial), {})

    def add(self, trial: Trial, found: Mapping[str, float | None]) -> dict[str, float]:
        """Add costs of a trial's student that are not known yet; return all that are known."""
        if not self._study.costs or trial.phase == "prepare":
            return {}
        known = self._known.setdefault(_get_key(trial), {})
        for name in self._study.costs:
            value = found.get(name)
            if is_finite(value):
                known.setdefault(name, value)
        return known

    def count_exact(self, trial: Trial, student: Any) -> dict[str, float]:
        """Return the known costs of a trial's student, after counting those that limits need and that are exact."""
        names = list_exact_limits(self._study)
        known = self.find(trial)
        if all(name in known for name in names):
            return known
        return self.add(trial, self._study.task.measure_student(student, names))


def train_with_costs(context: TrialContext, names: Sequence[str], known: Mapping[str, float]) -> Iterator[EpochResult]:
    """Yield the rows of a trial with these costs of its student, measured before it trains unless they are `known`."""
    missing = [name for name in names if name not in known] if context.rank == 0 else []
    costs = {**known, **(context.task.measure_student(context.student, missing) if missing else {})}
    for row in context.task.train(context):
        yield {**row, "metrics": row["metrics"] | costs}


def _get_key(trial: Trial) -> str:
    return digest(trial.config.get("student"))  # a refused trial has none, and never a cost


def list_exact_limits(study: Study) -> list[str]:
    """Return the costs under a limit that are known before a student is trained."""
    return [name for name in EXACT_COSTS if name in (study.constraints or {})]


def compute_excess(study: Study, costs: Mapping[str, float | None]) -> dict[str, float]:
    """Return by how much each known cost exceeds its limit, as a share of the limit: above 0 where it is violated."""
    known = {name: (costs.get(name), limit) for name, limit in (study.constraints or {}).items()}
    return {name: cost / limit - 1 for name, (cost, limit) in known.items() if is_finite(cost)}


def explain_violation(study: Study, costs: Mapping[str, float | None]) -> str:
    """Return which limits these costs exceed; empty if they exceed none."""
    limits = study.constraints or {}
    violated = [name for name, excess in compute_excess(study, costs).items() if excess > 0]
    return ", ".join(
        f"{name} is {format_cost_value(costs[name])}, its limit {format_cost_value(limits[name])}" for name in violated
    )


def format_cost_value(value: float | None) -> str:
    """Return a cost with at least four digits: 7,213,056 or 1.234."""
    return f"{value:,.0f}" if value is not None and value >= 1000 else f"{value:.4g}"


# -- before a study starts ---------------------------------------------------------------------------------------------


def check_costs(study: Study) -> None:
    """Check that the costs of a study can be measured, and that each student's domain has one within the limits.

    Latencies are not compared with their limits, since those of the machines that train count.
    Raises InputError for a cost that is no number above 0, and for limits that no student of a domain meets.
    """
    for student in study.students if study.costs else ():
        with explain_user_errors():
            corner = next(iter(resolve_corners(student)))
            found = study.task.measure_student(corner, study.costs)
            for name in study.costs:
                allowed = "a number above 0, as the task measures it"
                check_positive(f"{name} of {student.name}", float(found.get(name, math.nan)), allowed)
            _check_limits(study, student)


def _check_limits(study: Study, student: Any) -> None:
    names = list_exact_limits(study)
    if not names:
        return
    lowest, tried = dict.fromkeys(names, math.inf), 0
    for one in _list_students(student):
        costs = study.task.measure_student(one, names)
        if not explain_violation(study, costs):
            return
        lowest, tried = {name: min(lowest[name], costs[name]) for name in names}, tried + 1
    limits = ", ".join(f"{name} {format_cost_value((study.constraints or {})[name])}" for name in names)
    found = ", ".join(f"{name} {format_cost_value(value)}" for name, value in lowest.items())
    which = f"none of {tried} students of {student.name} meets" if is_unresolved(student) else f"{student.name} exceeds"
    raise InputError(
        f"{which} the constraints ({limits}); the lowest found: {found}. Raise the limits, or allow smaller students"
    )


def _list_students(student: Any) -> Iterator[Any]:
    """Yield students of a domain: its corners, then all of a few, or a random sample."""
    corners = list(resolve_corners(student))
    yield from corners
    if count_points(student) <= STUDENTS_TRIED:
        every = (resolve_params(student, params) for params in build_grid(student, STUDENTS_TRIED))
        yield from (one for one in every if one not in corners)
        return
    rng = random.Random(0)
    for _ in range(STUDENTS_TRIED):
        yield resolve(student, lambda _, domain: _draw(rng, domain))


def _draw(rng: random.Random, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        return rng.choice(domain.labels)
    if isinstance(domain, Integer):
        return rng.randint(int(domain.low), int(domain.high))
    return rng.uniform(domain.low, domain.high)

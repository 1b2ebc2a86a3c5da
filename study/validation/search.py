"""Validation of a study's search: what it selects by, within which limits, and from which points it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from study.errors import InputError, check_positive, check_whole_number
from study.search.halving import Never
from study.search.population_based import check_population_based
from study.search.samplers import CmaEs, Grid, WarmStart, check_sampler
from study.space.domains import is_unresolved
from study.space.params import is_same_point
from study.task import COSTS

if TYPE_CHECKING:
    from study.arm import Cell
    from study.study import Study


def check_selection(study: Study) -> None:
    """Check metric, objectives, limits and warm start. Raises InputError for the first problem found."""
    _check_metric(study)
    _check_objectives(study)
    _check_confirm_front(study)
    _check_constraints(study)
    _check_warm_start(study)


def _check_metric(study: Study) -> None:
    allowed = [name for name in study.task.metrics if name.startswith("val/")]
    if study.metric not in allowed:
        raise InputError(
            f"metric {study.metric!r} cannot select configurations: only validation metrics may ({', '.join(allowed)})"
        )


def _check_objectives(study: Study) -> None:
    if isinstance(study.objectives, str):
        raise InputError(f"objectives is {study.objectives!r}; write a tuple: objectives=({study.objectives!r},)")
    costs = _list_costs(study)
    allowed = [name for name in study.task.metrics if name.startswith("val/") and name != study.metric]
    for name in study.objectives:
        if name not in (*allowed, *costs) or study.objectives.count(name) > 1:
            known = f", and costs: {', '.join(costs)}" if costs else ""
            raise InputError(
                f"objective {name!r}: allowed are validation metrics other than {study.metric!r}, each once: "
                f"{', '.join(allowed) or 'none'}{known}"
            )
        if name in costs and not any(map(is_unresolved, study.students)):
            raise InputError(
                f"objective {name!r} is a cost of the student, and no student is searched: make a field of a student a "
                "domain, or leave it out"
            )
    if study.objectives and not isinstance(study.stopping, Never):
        raise InputError(
            f"with objectives, stopping is {study.stopping!r}: it would prune by {study.metric!r} alone, whatever the "
            "other metrics are; use stopping=Never()"
        )
    if study.objectives and isinstance(study.sampler, CmaEs):
        raise InputError("with objectives, sampler is CmaEs, which optimises a single metric; use Tpe, Random or Grid")


def _check_confirm_front(study: Study) -> None:
    check_whole_number("confirm_front", study.confirm_front, or_none=True)
    if study.confirm_front is not None and not study.objectives:
        raise InputError(f"confirm_front is {study.confirm_front} without objectives: name them, or leave it out")


def _list_costs(study: Study) -> list[str]:
    """Return the costs that the study's task knows, in the order of COSTS."""
    return [name for name in COSTS if name in study.task.costs]


def _check_constraints(study: Study) -> None:
    limits = study.constraints
    if limits is None:
        return
    costs = _list_costs(study)
    if not isinstance(limits, Mapping) or not limits:
        raise InputError(f'constraints is {limits!r}; write limits by cost: constraints={{"student/macs": 5e6}}')
    for name, limit in limits.items():
        if name not in costs:
            raise InputError(
                f"constraint on {name!r}: allowed are costs of the student: "
                f"{', '.join(costs) or 'none, as students of this task are no networks'}"
            )
        check_positive(f"constraint on {name!r}", limit, "a number above 0, the highest cost")
    if not any(map(is_unresolved, study.students)):
        raise InputError(
            "constraints limit which students a search may choose, and no student is searched: make a field of a "
            "student a domain, or leave constraints out"
        )
    if isinstance(study.sampler, CmaEs):
        raise InputError("with constraints, sampler is CmaEs, which takes none; use Tpe, Random or Grid")
    if populations := [arm.name for arm in study.arms if arm.search is not None]:
        raise InputError(
            f"arm {populations[0]!r}: PopulationBased changes settings during training, and a student stays as it is: "
            "leave out constraints="
        )


def _check_warm_start(study: Study) -> None:
    if study.warm_start is None:
        return
    if not isinstance(study.warm_start, WarmStart):
        raise InputError(f'warm_start is {study.warm_start!r}; write WarmStart("runs/…")')
    if isinstance(study.sampler, Grid):
        raise InputError("warm_start with Grid: a grid tries all its points anyway; leave one of the two out")


def check_search(study: Study, cell: Cell) -> None:
    arm = cell.arm
    if not isinstance(arm.first, tuple):
        raise InputError(f"arm {arm.name!r}: first is {arm.first!r}; write a tuple of losses: first=(…,)")
    if arm.first and not cell.is_searched:
        raise InputError(f"arm {arm.name!r} has first points and nothing to search: leave out first, or add a domain")
    try:
        points = cell.first_points
    except InputError as error:
        raise InputError(f"arm {arm.name!r}: a first point lies outside its search space: {error}") from None
    if any(is_same_point(point, other) for number, point in enumerate(points) for other in points[:number]):
        raise InputError(f"arm {arm.name!r}: two first points are the same; leave one out")
    if arm.search is not None:
        check_population_based(arm.search, arm.name, cell.space)
        if study.objectives:
            raise InputError(f"arm {arm.name!r}: PopulationBased ranks members by one metric; leave out objectives=")
        if len(points) > arm.search.count_members(study.budget.trials):
            raise InputError(
                f"arm {arm.name!r} has {len(points)} first points and a population of "
                f"{arm.search.count_members(study.budget.trials)}: raise it, or leave some out"
            )
    elif cell.is_searched:
        check_sampler(study.sampler, arm.name, cell.space, points, study.budget.trials)

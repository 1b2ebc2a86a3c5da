"""Validation of a Study: each refusal is one line that states what was given, what is allowed and the way out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from study.errors import InputError
from study.search.halving import Never, SuccessiveHalving
from study.search.population_based import check_population_based
from study.search.samplers import CmaEs, Grid, Random, Tpe, WarmStart, check_sampler
from study.space.domains import find_domains, is_domain, is_unresolved, list_children, resolve_corners
from study.space.params import is_same_point
from study.task import COSTS, SingleWorkerMethod, StatefulMethod

if TYPE_CHECKING:
    from study.study import Cell, Study

SEARCHABLE = re.compile(r"(students\.\d+|arms\.\d+\.(loss|recipe)|task\.recipe)(\.|$)")
"""The parts of a study that may contain domains."""

SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Halves of characters, as of file names that are not UTF-8: no file of the study can contain them."""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that would break the lines of tables or control a terminal; what joins emoji is allowed."""


def check_study(study: Study) -> None:
    """Check that a study is fair and can run.

    Raises InputError for the first problem found.
    """
    _check_name(study)
    _check_domains(study)
    _check_types(study)
    _check_arms_and_students(study)
    _check_baselines(study)
    _check_cells(study)
    _check_net_comparisons(study)
    _check_metric(study)
    _check_objectives(study)
    _check_confirm_front(study)
    _check_constraints(study)
    _check_warm_start(study)
    if not (isinstance(study.hang_seconds, int | float) and 0 < study.hang_seconds < math.inf):
        raise InputError(f"hang_seconds is {study.hang_seconds!r}; allowed is a number of seconds above 0")
    if study.test not in ("sign-flip", "sign"):
        raise InputError(f"test is {study.test!r}; allowed are 'sign-flip' and 'sign'")
    if study.confirm_on not in ("train+val", "train"):
        raise InputError(f"confirm_on is {study.confirm_on!r}; allowed are 'train+val' and 'train'")
    for cell in study.cells:
        _check_corners(study, cell)
        _check_search(study, cell)
    _check_workers(study)


def _check_name(study: Study) -> None:
    if not isinstance(study.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", study.name, re.ASCII):
        raise InputError(f"study name {study.name!r}: use letters, digits, '.', '_' and '-', at most 100 of them")
    if study.name in ("teachers", "outputs"):
        raise InputError(
            f"study name {study.name!r} is reserved for the folder of teachers or of their outputs; choose another"
        )


def _check_domains(study: Study) -> None:
    for path, domain in find_domains(study):
        if not SEARCHABLE.match(path):
            raise InputError(
                f"{path} is a domain, {domain!r}, and cannot be searched; losses, students and the recipe of students "
                "can: write a single value there"
            )


def _check_types(study: Study) -> None:
    """Check the types that a comma or a pair of brackets too few changes, before anything iterates over them."""
    for name in ("students", "arms", "assumptions", "net_comparisons"):
        if not isinstance(getattr(study, name), tuple | list):
            raise InputError(f"{name} is {getattr(study, name)!r}; write a tuple: {name}=(…,)")
    for name, allowed in (("sampler", (Tpe, Random, Grid, CmaEs)), ("stopping", (SuccessiveHalving, Never))):
        if not isinstance(getattr(study, name), allowed):
            known = ", ".join(f"{kind.__name__}(…)" for kind in allowed)
            raise InputError(f"{name} is {getattr(study, name)!r}; allowed are {known}")
    for name, absent in (("workers_per_trial", ()), ("reproducible_search", (None,))):
        count = getattr(study, name)
        if count not in absent and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise InputError(
                f"{name} is {count!r}; allowed is a whole number, at least 1{', or None' if absent else ''}"
            )
    if not isinstance(study.seed, int):
        raise InputError(f"seed is {study.seed!r}; allowed is a whole number")
    for text in (study.question, *study.assumptions):
        if not isinstance(text, str) or SURROGATE.search(text):
            raise InputError(f"{text!r} among question and assumptions: allowed is text, without lone surrogates")


def _check_arms_and_students(study: Study) -> None:
    if not study.students:
        raise InputError("a study needs at least one student; students is empty")
    for student in study.students:
        if is_domain(student):
            raise InputError(
                f"a student is a domain, {student!r}: list each net in students, or make fields of one net domains"
            )
    for kind, names in (("arm", [a.name for a in study.arms]), ("student", [s.name for s in study.students])):
        for name in names:
            if not isinstance(name, str) or not name or name != name.strip() or UNPRINTABLE.search(name):
                raise InputError(
                    f"{kind} name {name!r}: allowed is a line of text without control characters and outer spaces"
                )
            if " / " in name:
                raise InputError(f"{kind} name {name!r} contains ' / ', which joins cell names: write it without")
            if names.count(name) > 1:
                raise InputError(f"two {kind}s are called {name!r}: results are listed by name, give each its own")


def _check_baselines(study: Study) -> None:
    names = [arm.name for arm in study.arms]
    if not any(arm.baseline for arm in study.arms):
        raise InputError(
            f"no arm is a baseline (arms: {', '.join(names) or 'none'}): mark the one that others are compared with, "
            "Arm(…, baseline=True)"
        )
    for arm in study.arms:
        others = [name for name in names if name != arm.name]
        for versus in arm.versus_names:
            if versus not in others:
                raise InputError(
                    f"arm {arm.name!r} is compared with {versus!r}; the other arms are: {', '.join(others)}"
                )
            if arm.versus_names.count(versus) > 1:
                raise InputError(f"arm {arm.name!r} is compared with {versus!r} twice; name it once in versus")
        margin = arm.margin
        if margin is not None and not (isinstance(margin, int | float) and 0 < margin < math.inf):
            raise InputError(
                f"arm {arm.name!r}: margin is {margin!r}; allowed is a number above 0 in the metric's unit"
            )


def _check_cells(study: Study) -> None:
    """Check the arms' student names, and that every cell's comparison arm trains the same student."""
    names = [student.name for student in study.students]
    for arm in study.arms:
        unknown = [name for name in arm.students or () if name not in names]
        if unknown:
            raise InputError(f"arm {arm.name!r} is for student {unknown[0]!r}; the students are: {', '.join(names)}")
    existing = {(cell.student.name, cell.arm.name) for cell in study.cells}
    for name in names:
        if not any(student == name for student, _ in existing):
            raise InputError(f"student {name!r} has no arm: name it in an arm's students, or leave it out")
    for cell in study.cells:
        for versus in study.find_comparisons(cell.arm):
            if (cell.student.name, versus.name) not in existing:
                raise InputError(
                    f"arm {cell.arm.name!r} is compared with {versus.name!r}, which is not for "
                    f"{cell.student.name!r}: give both the same students"
                )


def _check_net_comparisons(study: Study) -> None:
    cells = {cell.name: cell.student.name for cell in study.cells}
    metrics = [name for name in study.task.metrics if name.startswith("test/")]
    for one in study.net_comparisons:
        unknown = [name for name in (one.cell, *one.versus) if name not in cells]
        if unknown:
            raise InputError(f"net comparison of {unknown[0]!r}: the cells are {', '.join(cells)}")
        alike = [name for name in one.versus if cells[name] == cells[one.cell]]
        if alike:
            raise InputError(
                f"net comparison of {one.cell!r} with {alike[0]!r}: both are the same student; compare arms by "
                "Arm(…, versus=…)"
            )
        if wrong := [name for name in one.metrics if name not in metrics]:
            raise InputError(f"net comparison by {wrong[0]!r}: the test metrics are {', '.join(metrics)}")


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
    size = study.confirm_front
    if size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"confirm_front is {size!r}; allowed is a whole number, at least 1, or None")
    if not study.objectives:
        raise InputError(
            f"confirm_front is {size} and there are no objectives, whose front it is of: name them, or leave it out"
        )


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
        if not isinstance(limit, int | float) or isinstance(limit, bool) or not 0 < limit < math.inf:
            raise InputError(f"constraint on {name!r} is {limit!r}; allowed is a number above 0, the highest cost")
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


def _check_corners(study: Study, cell: Cell) -> None:
    """Build loss, recipe and student at both ends of their domains, which runs their own range checks."""
    names = [name for name, _ in find_domains(cell.space)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{cell.name}: two domains are called {name!r}; rename the field of the loss")
    try:
        for configuration in resolve_corners(cell.space):
            loss = configuration.loss
            study.task.with_recipe(configuration.recipe)
            if not hasattr(loss, "needs_teacher"):
                raise InputError(f"{type(loss).__name__} has no 'needs_teacher': see docs/extending.md")
            if hasattr(loss, "begin") and not isinstance(loss, StatefulMethod):  # its name before version 0.2
                raise InputError(f"{type(loss).__name__} defines begin(), which is now called new_state()")
    except InputError as error:
        where = " at an end of its search space" if cell.is_searched else ""
        raise InputError(f"arm {cell.arm.name!r}{where}: {error}") from None


def _check_search(study: Study, cell: Cell) -> None:
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


def _check_workers(study: Study) -> None:
    workers = study.workers_per_trial
    if workers == 1:
        return
    for arm in study.arms:
        for loss in resolve_corners(arm.loss):
            for reason in _single_worker_reasons(loss):
                raise InputError(
                    f"arm {arm.name!r}: {type(loss).__name__} cannot be trained by {workers} workers: {reason}; "
                    "use workers_per_trial=1"
                )


def _single_worker_reasons(loss: Any) -> Iterator[str]:
    """Yield why a loss, or an object in its fields, needs a single worker; nothing if batches can be split."""
    if isinstance(loss, SingleWorkerMethod):
        if reason := loss.single_worker_reason():
            yield reason
    elif isinstance(loss, StatefulMethod):
        yield "it owns parts that are trained, and each worker would train them on its shard of a batch alone"
    else:
        for _, item in list_children(loss):
            yield from _single_worker_reasons(item)

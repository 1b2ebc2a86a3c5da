"""Validation of a study's arms, students and cells, and of what is compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from study.errors import InputError, check_positive
from study.space.domains import Domain, find_domains, list_children, resolve_corners
from study.task import SingleWorkerMethod, StatefulMethod

if TYPE_CHECKING:
    from study.arm import Cell
    from study.study import Study


UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that would break the lines of tables or control a terminal; what joins emoji is allowed."""


def check_arms(study: Study) -> None:
    """Check names, baselines, and that what is compared exists. Raises InputError for the first problem found."""
    _check_names(study)
    _check_baselines(study)
    _check_cells(study)
    _check_net_comparisons(study)


def _check_names(study: Study) -> None:
    if not study.students:
        raise InputError("a study needs at least one student; students is empty")
    for student in study.students:
        if isinstance(student, Domain):
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
        if arm.margin is not None:
            check_positive(f"arm {arm.name!r}: margin", arm.margin, "a number above 0 in the metric's unit")


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


def check_corners(study: Study, cell: Cell) -> None:
    """Build loss, recipe and student at both ends of their domains, which runs their own range checks."""
    names = [name for name, _ in find_domains(cell.space)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{cell.name}: two domains are called {name!r}: rename one of the two fields")
    try:
        for configuration in resolve_corners(cell.space):
            loss = configuration.loss
            study.task.with_recipe(configuration.recipe)
            if not hasattr(loss, "needs_teacher"):
                raise InputError(f"{type(loss).__name__} has no 'needs_teacher': add it as docs/extending.md shows")
            if hasattr(loss, "begin") and not isinstance(loss, StatefulMethod):  # its name before version 0.2
                raise InputError(f"{type(loss).__name__} defines begin(), which is now called new_state(): rename it")
    except InputError as error:
        where = " at an end of its search space" if cell.is_searched else ""
        raise InputError(f"arm {cell.arm.name!r}{where}: {error}") from None


def check_workers(study: Study) -> None:
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

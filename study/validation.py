"""What a Study refuses, each in one line that says the way out."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from study.errors import InputError
from study.search.cma import CmaEs
from study.search.halving import Never
from study.search.samplers import Grid, WarmStart, check_sampler
from study.space.domains import corners
from study.space.params import equal_points

if TYPE_CHECKING:
    from study.study import Arm, Study

METHOD = ("needs_teacher",)
"""What the engine reads of a loss; its task asks for more."""

LEARNS = "new_state"
"""What a loss has whose own parts learn beside the student, see trainables/losses/state.py."""


def check(study: Study) -> None:
    """Raises InputError for the first thing that would make this study unfair or keep it from working."""
    _check_names(study)
    _check_baselines(study)
    _check_metric(study)
    _check_objectives(study)
    _check_warm_start(study)
    if not 0 < study.hang_seconds < math.inf:
        raise InputError(f"hang_seconds is {study.hang_seconds!r}; allowed is a number of seconds above 0")
    if study.confirm_on not in ("train+val", "train"):
        raise InputError(f"confirm_on is {study.confirm_on!r}; allowed are 'train+val' and 'train'")
    for arm in study.arms:
        _check_domains(arm)
        _check_search(study, arm)
    _check_workers(study)


def _check_warm_start(study: Study) -> None:
    if study.warm_start is None:
        return
    if not isinstance(study.warm_start, WarmStart):
        raise InputError(f'warm_start is {study.warm_start!r}; write WarmStart("runs/…")')
    if isinstance(study.sampler, Grid):
        raise InputError("warm_start with Grid: a grid tries all its points anyway; leave one of the two out")


def _check_names(study: Study) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", study.name, re.ASCII):
        raise InputError(f"study name {study.name!r}: use letters, digits, '.', '_' and '-', at most 100 of them")
    if study.name in ("teachers", "outputs"):
        raise InputError(
            f"study name {study.name!r} is taken: teachers and their outputs are kept there; choose another"
        )
    if not study.students:
        raise InputError("a study needs at least one student; students is empty")
    for kind, names in (("arm", [a.name for a in study.arms]), ("student", [s.name for s in study.students])):
        slashed = [name for name in names if " / " in name or not name]
        if slashed:
            raise InputError(f"{kind} name {slashed[0]!r}: it must have letters, and no ' / ', which joins cell names")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"two {kind}s are called {twice[0]!r}: names tell results apart, give each its own")


def _check_baselines(study: Study) -> None:
    names = [arm.name for arm in study.arms]
    if not any(arm.baseline for arm in study.arms):
        raise InputError(
            f"no arm is a baseline (arms: {', '.join(names) or 'none'}): mark the one others are compared with, "
            "Arm(…, baseline=True); without it a difference means nothing"
        )
    for arm in study.arms:
        if arm.versus is not None and (arm.versus not in names or arm.versus == arm.name):
            raise InputError(
                f"arm {arm.name!r} is compared with {arm.versus!r}; the other arms are: {', '.join(names)}"
            )
    _check_cells(study)


def _check_cells(study: Study) -> None:
    """Where arms are for some students only: names, and that nothing is compared with what is not there."""
    names = [student.name for student in study.students]
    for arm in study.arms:
        unknown = [name for name in arm.students or () if name not in names]
        if unknown:
            raise InputError(f"arm {arm.name!r} is for student {unknown[0]!r}; the students are: {', '.join(names)}")
    there = {(cell.student.name, cell.arm.name) for cell in study.cells}
    for name in names:
        if not any(student == name for student, _ in there):
            raise InputError(f"student {name!r} has no arm: name it in an arm's students, or leave it out")
    for cell in study.cells:
        versus = study.versus(cell.arm)
        if versus is not None and (cell.student.name, versus.name) not in there:
            raise InputError(
                f"arm {cell.arm.name!r} is compared with {versus.name!r}, which is not for {cell.student.name!r}: "
                "give both the same students"
            )


def _check_metric(study: Study) -> None:
    allowed = [name for name in study.task.metrics if name.startswith("val/")]
    if study.metric not in allowed:
        raise InputError(
            f"metric {study.metric!r} cannot select configurations: only validation metrics may ({', '.join(allowed)})"
        )


def _check_objectives(study: Study) -> None:
    if isinstance(study.objectives, str):
        raise InputError(f"objectives is {study.objectives!r}; write a tuple: objectives=({study.objectives!r},)")
    allowed = [name for name in study.task.metrics if name.startswith("val/") and name != study.metric]
    for name in study.objectives:
        if name not in allowed or study.objectives.count(name) > 1:
            others = ", ".join(allowed) or "none"
            raise InputError(
                f"objective {name!r}: allowed are validation metrics beside {study.metric!r}, once: {others}"
            )
    if study.objectives and not isinstance(study.stopping, Never):
        raise InputError(
            f"with objectives, stopping is {study.stopping!r}: it would stop by {study.metric!r} alone what is good "
            "in the others; use stopping=Never()"
        )
    if study.objectives and isinstance(study.sampler, CmaEs):
        raise InputError("with objectives, sampler is CmaEs, which follows one score; use Tpe, Random or Grid")


def _check_search(study: Study, arm: Arm) -> None:
    if not isinstance(arm.first, tuple):
        raise InputError(f"arm {arm.name!r}: first is {arm.first!r}; write a tuple of losses: first=(…,)")
    if arm.first and not arm.searched:
        raise InputError(f"arm {arm.name!r} has first points and nothing to search: leave out first, or add a domain")
    try:
        points = arm.first_points
    except InputError as error:
        raise InputError(f"arm {arm.name!r}: a first point lies outside its search space: {error}") from None
    if any(equal_points(point, other) for number, point in enumerate(points) for other in points[:number]):
        raise InputError(f"arm {arm.name!r}: two first points are the same; leave one out")
    if arm.searched:
        check_sampler(study.sampler, arm.name, arm.loss, points, study.budget.trials)


def _check_workers(study: Study) -> None:
    workers = study.workers_per_trial
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InputError(f"workers_per_trial is {workers!r}; allowed is a whole number, at least 1")
    if workers == 1:
        return
    for arm in study.arms:
        for loss in corners(arm.loss):
            name = f"arm {arm.name!r}: {type(loss).__name__}"
            if hasattr(loss, LEARNS):
                raise InputError(
                    f"{name} has parts of its own that learn, which {workers} workers would each train on their part "
                    "of a batch alone; use workers_per_trial=1"
                )
            if getattr(loss, "adaptive", None) is not None:
                raise InputError(
                    f"{name} ranks the samples of a batch, of which each of {workers} workers sees a part; use "
                    "workers_per_trial=1, or leave 'adaptive' out"
                )


def _check_domains(arm: Arm) -> None:
    try:
        for loss in corners(arm.loss):
            for wanted in METHOD:
                if not hasattr(loss, wanted):
                    raise InputError(f'{type(loss).__name__} has no {wanted!r}: see "Adding a loss" in README.md')
    except InputError as error:
        raise InputError(f"arm {arm.name!r} at an end of its search space: {error}") from None

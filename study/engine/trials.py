"""Trials as the coordinator starts them, and the check of the metrics that they report."""

from __future__ import annotations

import math
from collections.abc import Mapping

from study.identity import describe
from study.records.rows import RunningTrial
from study.space.domains import Value
from study.study import Cell, Study
from study.task import Preparation
from study.trial import Phase, Trial


def make_trial(
    study: Study, cell: Cell, phase: Phase, number: int, params: Mapping[str, Value], fingerprints: Mapping[str, str]
) -> Trial:
    """Return a search or confirm trial; `fingerprints` identify the study's inputs.

    Raises InputError if loss, recipe or student refuse this combination of values.
    """
    student, arm, configuration = cell.student, cell.arm, cell.configure(params)
    config = {
        "task": describe(study.task.with_recipe(configuration.recipe)),
        "student": describe(configuration.student),
        "loss": describe(configuration.loss),
        "train_on": study.confirm_on if phase == "confirm" else "train",
        "inputs": dict(fingerprints),
    } | ({"workers": study.workers_per_trial} if study.workers_per_trial > 1 else {})
    seed = study.derive_trial_seed(phase, number)
    return Trial(phase, student.name, arm.name, number, seed, study.budget.epochs, params, config)


def make_refused_trial(study: Study, cell: Cell, number: int, params: Mapping[str, Value], reason: str) -> Trial:
    """Return a search trial that cannot start, for its row."""
    seed, config = study.derive_trial_seed("search", number), {"refused": reason}
    return Trial("search", cell.student.name, cell.arm.name, number, seed, study.budget.epochs, params, config)


def make_preparation_trial(step: Preparation) -> Trial:
    return Trial("prepare", "", step.name, 0, 0, step.epochs, {}, describe(step.config))


def find_fault(study: Study, run: RunningTrial) -> str:
    """Return which metrics of a trial's last epoch are not finite; empty if the study can use them.

    A search needs its objectives after every epoch, a confirm trial its test metric after the last one.
    """
    if run.trial.phase == "search":
        names = tuple(study.objective_directions)
    elif run.trial.phase == "confirm" and run.epochs_done == run.trial.epochs:
        names = (study.test_metric,)
    else:
        return ""
    values = {name: run.metrics.get(name, math.nan) for name in names}
    unusable = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    return f"{', '.join(unusable)} in epoch {run.epochs_done}" if unusable else ""

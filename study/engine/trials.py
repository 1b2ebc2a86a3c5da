"""Trials as the coordinator starts them, and the check of the metrics that they report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from study.arm import Cell
from study.engine.search_progress import Proposal
from study.identity import describe
from study.records.rows import RunningTrial
from study.study import Study
from study.task import Preparation
from study.trial import Split, Trial


def make_search_trial(study: Study, cell: Cell, proposal: Proposal, fingerprints: Mapping[str, str]) -> Trial:
    """Return a search trial; `fingerprints` identify the study's inputs.

    Raises InputError if loss, recipe or student refuse this combination of values.
    """
    link = proposal.link
    config = _describe_configuration(study, cell, "train", proposal.params, fingerprints)
    config |= {"link": {key: value for key, value in asdict(link).items() if key != "member"}} if link else {}
    return _make_search_trial(study, cell, proposal, config)


def make_confirm_trial(
    study: Study, cell: Cell, number: int, params: Mapping[str, Any], fingerprints: Mapping[str, str], point: int = 0
) -> Trial:
    """Return a confirm trial of chosen parameters, `point` of those of its cell.

    Raises InputError if loss, recipe or student refuse this combination of values.
    """
    config = _describe_configuration(study, cell, study.confirm_on, params, fingerprints)
    seed = study.derive_trial_seed("confirm", number)
    student, arm, epochs = cell.student.name, cell.arm.name, study.budget.epochs
    return Trial("confirm", student, arm, number, seed, epochs, params, config, point=point)


def make_refused_trial(study: Study, cell: Cell, proposal: Proposal, reason: str) -> Trial:
    """Return a search trial that cannot start, for its row."""
    # with its place: refused links of a member differ in nothing else, and equal trials share one row
    place = {"link": asdict(proposal.link)} if proposal.link else {}
    return _make_search_trial(study, cell, proposal, {"refused": reason} | place)


def _make_search_trial(study: Study, cell: Cell, proposal: Proposal, config: Mapping[str, Any]) -> Trial:
    number, link = proposal.number, proposal.link
    # all links of a member share its seed: a chain that copies none is one undisturbed run
    seed = study.derive_trial_seed("search", link.member if link else number)
    student, arm, epochs = cell.student.name, cell.arm.name, study.budget.epochs
    return Trial("search", student, arm, number, seed, epochs, proposal.params, config, link)


def _describe_configuration(
    study: Study, cell: Cell, train_on: Split, params: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """Return the description of what a trial trains, on what and from what."""
    configuration = cell.configure(params)
    return {
        "task": describe(study.task.with_recipe(configuration.recipe)),
        "student": describe(configuration.student),
        "loss": describe(configuration.loss),
        "train_on": train_on,
        "inputs": dict(fingerprints),
    } | ({"workers": study.workers_per_trial} if study.workers_per_trial > 1 else {})


def make_preparation_trial(step: Preparation) -> Trial:
    return Trial("prepare", "", step.name, 0, 0, step.epochs, {}, describe(step.config))


def find_fault(study: Study, run: RunningTrial) -> str:
    """Return which metrics of a trial's last epoch are not finite; empty if the study can use them.

    A search needs its objectives and the costs under a limit after every epoch, a confirm trial its test metric after
    the last one.
    """
    if run.trial.phase == "search":
        names = tuple(dict.fromkeys([*study.objective_directions, *(study.constraints or {})]))
    elif run.trial.phase == "confirm" and run.epochs_done == run.trial.epochs:
        names = (study.test_metric,)
    else:
        return ""
    values = {name: run.metrics.get(name, math.nan) for name in names}
    unusable = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    return f"{', '.join(unusable)} in epoch {run.epoch}" if unusable else ""

"""The answer of --dry-run: what a run would train, and about how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.format.values import count_of
from study.arm import Cell
from study.cli.dry_run.epoch_times import assume_epoch_seconds, read_epoch_times
from study.cli.dry_run.forecast import forecast_study, format_forecast
from study.engine.warm_start import read_warm_start
from study.preflight import DriverOptions, find_resources, format_preparations
from study.records.paths import StudyPaths
from study.search.halving import SuccessiveHalving, searches_schedules
from study.space.params import count_points
from study.study import Study
from study.task import Preparation

MAX_CLASSES = 10
"""Classes that are named, at most."""
MAX_DUPLICATES = 20
"""Images in several splits that are listed, at most: as many as a screen has room for."""

CHECKPOINT_BYTES = 12
"""Bytes of a checkpoint for each parameter: the weight, and two moments of Adam; SGD has one."""


def format_plan(study: Study, inputs: Mapping[str, Any], steps: list[Preparation]) -> list[str]:
    """Return what would be trained, in a few lines; `steps` prepare it."""
    from reports.text.few_seeds import warn_of_few_seeds

    budget = study.budget
    searches = [study.count_trials(cell) for cell in study.cells]
    lines = [
        f"{study.name}: {study.question}",
        *_describe_data(inputs.get("data", {})),
        *format_preparations(steps),
        "cells:",
    ]
    lines += [f"  {cell.name}: {_format_search(study, cell)}{_format_confirm(study, cell)}" for cell in study.cells]
    lines.append(f"seeds: study {study.seed}; {budget.seeds} confirm seeds, the same for all arms")
    if warning := warn_of_few_seeds(budget.seeds, study.max_tests):
        lines.append(warning)
    lines += _warn_of_searches(study)
    confirms = sum(map(study.count_confirm_points, study.cells)) * budget.seeds
    total = sum(searches) + confirms
    epochs = (sum(map(study.count_search_runs, study.cells)) + confirms) * budget.epochs
    at_most = "at most " if sum(searches) else ""  # the stopping rule ends search trials early
    has_fronts = study.front_size > 1 and any(searches)  # a front may have fewer points
    lines.append(
        f"{count_of(len(study.cells), 'cell')}, {'at most ' if has_fronts else ''}{count_of(total, 'trial')} "
        f"({sum(searches):,} search, {'at most ' if has_fronts else ''}{confirms:,} confirm), {at_most}"
        f"{count_of(epochs, 'epoch')}"
    )
    return lines


def _format_search(study: Study, cell: Cell) -> str:
    trials, search = study.count_trials(cell), cell.arm.search
    if search is None:
        return f"search {count_of(trials, 'trial')}, then " if trials else ""
    members, epochs = study.count_search_runs(cell), study.budget.epochs
    intervals = search.count_intervals(epochs)
    return f"search {members} members in {intervals} intervals, {count_of(trials, 'trial')}, then "


def _format_confirm(study: Study, cell: Cell) -> str:
    """Return how many seeds a cell confirms, of how many points of its front, and of its students under other arms."""
    seeds, points, most = study.budget.seeds, study.front_size, study.count_confirm_points(cell)
    if most == 1:
        return f"confirm {count_of(seeds, 'seed')}"
    further = f", and of at most {most - points} students that are compared with it" if most > points else ""
    return f"confirm {count_of(seeds, 'seed')} of at most {points} points of its front{further}"


def _describe_data(data: Mapping[str, Any]) -> list[str]:
    """Return the data set's name, sizes and classes, and lines for what was found and for images in several splits."""
    duplicates = data.get("duplicates") or ""
    note = "; ".join(part for part in str(data.get("note") or "").split("; ") if part not in duplicates)
    found = [f"in these data: {note}"] if note else []
    found += [f"images occur in more than one split: {duplicates}"] if duplicates else []
    return [
        f"data: {data.get('name', 'none')}{_format_sizes(data)}",
        *found,
        *_list_duplicates(data.get("duplicate_images", ())),
    ]


def _format_sizes(data: Mapping[str, Any]) -> str:
    """Return the sizes of the splits, and the names of the classes; empty if they are not known."""
    words = {"train": "training", "val": "validation", "test": "test"}
    sizes = ", ".join(f"{data[split]:,} {word}" for split, word in words.items() if split in data)
    names = data.get("class_names") or ()
    more = ", …" if len(names) > MAX_CLASSES else ""
    classes = f", {len(names)} classes: {', '.join(names[:MAX_CLASSES])}{more}" if names else ""
    return f", {sizes} samples{classes}" if sizes else ""


def _list_duplicates(images: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each image that occurs in an earlier split; none for a single one, which is named already."""
    lines = [f"  {one['image']} {'is' if one['equal'] else 'is like'} {one['other']}" for one in images]
    more = [f"  and {len(lines) - MAX_DUPLICATES} more, in tables/duplicates.csv of the report"]
    return lines[:MAX_DUPLICATES] + more * (len(lines) > MAX_DUPLICATES) if len(lines) > 1 else []


def _warn_of_searches(study: Study) -> list[str]:
    """Return a line for each search that proves less than it seems to, or that is stopped later."""
    late = list(dict.fromkeys(cell.arm.name for cell in study.cells if searches_schedules(cell.space)))
    judged = f"halving judges trials of {', '.join(late)} only after the schedules that they search have changed"
    lines = [judged] if late and isinstance(study.stopping, SuccessiveHalving) else []
    for arm in study.arms:
        if study.is_tuned_alone(arm):
            others = study.find_comparisons(arm)
            owner = "the recipe of " if any(map(study.is_searched, others)) else ""
            lines.append(
                f"{owner}{arm.name} is searched, {owner}{', '.join(other.name for other in others)} is not: a gain may "
                "come from tuning alone; compare it with an arm that searches the same settings, Arm(…, versus=…), or "
                "search the recipe in all arms"
            )
        if apart := [one.name for one in study.find_comparisons(arm) if study.differs_in_recipe(arm, one)]:
            lines.append(
                f"{arm.name} and {', '.join(apart)} have different recipes: their difference is one of recipe and "
                "method together"
            )
    lines += _warn_of_populations(study)
    if live := [arm.name for arm in study.arms if arm.needs_teacher and not arm.uses_store]:
        lines.append(f"features are not stored: the teacher of {', '.join(live)} is run at every step")
    few = {
        cell.arm.name: count_points(cell.space) for cell in study.cells if cell.is_searched and cell.arm.search is None
    }
    lines += [
        f"{name} has {points} distinct points to search, fewer than {study.budget.trials} trials: each is tried once"
        for name, points in few.items()
        if points < study.budget.trials
    ]
    return lines


def _warn_of_populations(study: Study) -> list[str]:
    """Return a line for each search by a population that may train fewer epochs than the other searches."""
    trials, epochs = study.budget.trials, study.budget.epochs
    return [
        f"{cell.name}: its {members} members may train {members * epochs} epochs, other searches up to "
        f"{trials * epochs}; leave out population= for as many"
        for cell in study.cells
        if cell.arm.search and (members := study.count_search_runs(cell)) < trials
    ]


def _format_disk(study: Study, storage: Path) -> list[str]:
    """Return how many checkpoints each population keeps on disk at once, and their size where it is known."""
    lines = []
    for cell in study.cells:
        if cell.arm.search is None:
            continue
        trials, size = study.budget.trials, ""
        most, strong = cell.arm.search.count_most_checkpoints(trials), cell.arm.search.count_strong(trials)
        described = study.task.describe_models({cell.name: cell.student}, storage)["students"].get(cell.name, {})
        if parameters := described.get("parameters"):
            size = f", about {most * parameters * CHECKPOINT_BYTES / 1e6:.3g} MB"
        lines.append(
            f"{cell.name}: up to {most} checkpoints on disk at once{size}; {strong} more for each further interval by "
            "which the slowest member is behind"
        )
    return lines


def format_estimate(
    study: Study,
    inputs: Mapping[str, Any],
    steps: list[Preparation],
    options: DriverOptions,
    seconds_per_epoch: float | None,
) -> list[str]:
    """Return the estimated duration, that of the preparing `steps` included, in a line or two.

    Raises InputError if a new study's warm start finds no configurations.
    """
    storage = options.storage
    if not StudyPaths(storage / study.name).study_json.is_file():
        read_warm_start(study)
    resources = find_resources(options, study)
    measured = None if seconds_per_epoch else read_epoch_times(study, inputs, storage, resources.gpus)
    times = assume_epoch_seconds(seconds_per_epoch) if seconds_per_epoch else measured
    concurrent, gpus = resources.concurrent, resources.trial_gpus
    forecast = forecast_study(study, inputs, storage, steps, times, concurrent, gpus, options.retry_failed)
    return [*_format_disk(study, storage), *format_forecast(forecast, study.name)]

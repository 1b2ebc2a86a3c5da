"""Warnings of a study whose numbers cannot mean what they seem to: a useless teacher, images in several splits,
students that learned nothing, searches that ended at the edge of their space.

They stand before all results, on the page and on the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from reports.analysis import statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.search import find_best_trial, find_search_domains
from reports.analysis.sign_tests import TIE
from reports.format.values import format_value, join_words
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

EDGE = 0.02
"""Share of a domain's width, on its scale, that counts as its edge."""
FEW_VALUES = 5
"""Number of whole numbers below which a domain has no edge to speak of: a good half of its values are ends."""
CHANCE_DEVIATIONS = 3
"""Standard deviations by which an accuracy must exceed chance; a guess exceeds it by as many in 1 of 700 cases."""


def list_warnings(records: StudyRecords) -> list[str]:
    """Return a sentence for each finding; none for most studies."""
    return [
        *_describe_label_order(records),
        *_describe_weak_teacher(records),
        *_describe_duplicates(records),
        *_describe_unmoved_students(records),
        *_describe_students_near_chance(records),
        *_describe_edges(records),
    ]


def _describe_label_order(records: StudyRecords) -> Iterator[str]:
    """Yield that the teacher's labels are in another order than the data's, as its import found on validation."""
    order = records.section("teacher", "label_order")
    moved = order.get("moved")
    if not moved:
        return
    true, predicted = (_name_class(records, number) for number in moved[0])
    metric = records.get_metric("val/accuracy")
    yield (
        f"The teacher's labels are in another order than the data's: it predicts {len(moved)} of {order['classes']} "
        f"classes as another one, such as class {true} as {predicted}, and would have "
        f"{metric.format(order['accuracy_in_order'])} instead of {metric.format(order['accuracy'])} "
        f"{metric.unit} validation accuracy in the right one. Reorder its last layer."
    )


def _name_class(records: StudyRecords, number: int) -> str:
    """Return a class's number, with its name if the data have names."""
    names = records.section("inputs", "data").get("class_names")
    return f"{number} ({names[number]})" if isinstance(names, list) and number < len(names) else str(number)


def _describe_weak_teacher(records: StudyRecords) -> Iterator[str]:
    """Yield that the teacher scores near chance, nothing finite, or worse than a student that learned without it."""
    teacher, data = records.section("teacher"), records.section("inputs", "data")
    metrics, name = records.section("teacher", "metrics"), records.test_metric
    if _is_near_chance(metrics.get("test/accuracy"), data):
        score = _format(records, "test/accuracy", metrics["test/accuracy"])
        yield f"The teacher scores near chance: {score} test accuracy, of {data['classes']} classes. {_advise(teacher)}"
    value = metrics.get(name)
    if not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        yield f"The teacher's {records.get_metric(name).words} is {value}, no finite number. {_advise(teacher)}"
        return
    for student in records.students:
        alone = _find_lone_arm(records, student)
        scores = list(group_by_seed(records, name).get(alone.name, {}).values()) if alone else []
        if alone is None or not scores:
            continue
        mean = statistics.compute_mean(scores).mean
        if value < mean if records.get_direction(name) == "max" else value > mean:
            pair = f"{_format(records, name, value)} against {_format(records, name, mean)}"
            yield (
                f"The teacher scores worse than {student} without it: {pair} {records.get_metric(name).words} "
                f"({alone.arm}). {_advise(teacher)}"
            )


def _is_near_chance(accuracy: Any, data: Mapping[str, Any]) -> bool:
    """Return whether an accuracy is not distinguishable from guessing one of the classes on the test samples."""
    classes, samples = data.get("classes"), data.get("test")
    if not (isinstance(accuracy, int | float) and isinstance(classes, int) and isinstance(samples, int) and samples):
        return False
    chance = 1 / classes
    return accuracy <= chance + CHANCE_DEVIATIONS * math.sqrt(chance * (1 - chance) / samples)


def _find_lone_arm(records: StudyRecords, student: str) -> Cell | None:
    """Return the arm that all others are compared with in the end, unless it records a distance to the teacher."""
    first = next((cell for cell in records.get_cells(student) if cell.baseline and not cell.versus), None)
    if first is None or "train/teacher_distance" not in records.epochs:
        return first
    rows = records.epochs[records.epochs["cell"] == first.name]["train/teacher_distance"]
    return None if rows.notna().any() else first


def _advise(teacher: Mapping[str, Any]) -> str:
    source = str(teacher.get("source") or "")
    if source.startswith("file "):
        return f"Check the {source}, the normalisation of its inputs and the order of its labels."
    return "Train it longer, or by another recipe, before students learn from it."


def _describe_duplicates(records: StudyRecords) -> Iterator[str]:
    data = records.section("inputs", "data")
    if found := str(data.get("duplicates") or ""):
        listed = " tables/duplicates.csv lists them." if data.get("duplicate_images") else ""
        yield f"Images occur in more than one split: {found}. Scores on them are too good.{listed}"


def _format(records: StudyRecords, name: str, value: float) -> str:
    metric = records.get_metric(name)
    return metric.format(value) + (f" {metric.unit}" if metric.unit else "")


def _describe_unmoved_students(records: StudyRecords) -> Iterator[str]:
    """Yield the cells whose training loss is the same after every epoch of every confirm run."""
    epochs = records.epochs[records.epochs["phase"] == "confirm"]
    if "train/loss" not in epochs:
        return
    losses = epochs.groupby("trial_id")["train/loss"].agg(["min", "max", "count"])
    moved = losses["max"] - losses["min"] > TIE * losses["max"].abs()
    known = moved[losses["count"] > 1].groupby(epochs.drop_duplicates("trial_id").set_index("trial_id")["cell"]).any()
    for cell in (cell for cell, has_moved in known.items() if not has_moved):
        yield f"The students of {cell} learned nothing: their training loss never changes. Check rate and loss."


def _describe_students_near_chance(records: StudyRecords) -> Iterator[str]:
    """Yield the cells whose confirm runs all score near chance."""
    data = records.section("inputs", "data")
    scores = group_by_seed(records, "test/accuracy")
    if guessing := [cell for cell, runs in scores.items() if all(_is_near_chance(run, data) for run in runs.values())]:
        yield (
            f"The students of {join_words(guessing)} score near chance in every run, on data of {data['classes']} "
            "classes: a comparison with them says nothing. Train them longer, or with another learning rate."
        )


def _describe_edges(records: StudyRecords) -> Iterator[str]:
    """Yield the searches whose best trial lies at the edge of its space."""
    for cell in records.cells:
        best = find_best_trial(records, cell) if cell.searched else None
        domains = find_search_domains(records, cell)
        params = parse_json_object(best["params"]) if best is not None else {}
        edges = [
            f"{name} = {format_value(value)}, searched from {domains[name]['low']:g} to {domains[name]['high']:g}"
            for name, value in params.items()
            if _is_at_edge(value, domains.get(name, {}))
        ]
        if edges:
            yield (
                f"The search of {cell.name} found its best at the edge of its space: {join_words(edges)}. "
                "Better values may lie beyond."
            )


def _is_at_edge(value: Any, domain: Mapping[str, Any]) -> bool:
    kind = domain.get("is")
    if kind not in ("Integer", "Uniform") or not isinstance(value, int | float):
        return False
    low, high, value = float(domain["low"]), float(domain["high"]), float(value)
    if kind == "Integer":
        return high - low >= FEW_VALUES and value in (low, high)
    share_of_one = (low, high) == (0, 1)
    if low == 0:  # a bound by nature, as of weights and shares: nothing lies beyond
        return not share_of_one and value / high > 1 - EDGE
    low, high, value = (math.log(x) for x in (low, high, value)) if domain.get("log") else (low, high, value)
    return not EDGE <= (value - low) / (high - low) <= 1 - EDGE

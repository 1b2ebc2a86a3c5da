"""Warnings of a study whose numbers cannot mean what they seem to: a useless teacher, images in several splits.

They stand before all results, on the page and on the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from reports.analysis import statistics
from reports.analysis.comparison import group_by_seed
from reports.load import Cell, StudyRecords

CHANCE_DEVIATIONS = 3
"""Standard deviations by which an accuracy must exceed chance; a guess exceeds it by as many in 1 of 700 cases."""


def list_warnings(records: StudyRecords) -> list[str]:
    """Return a sentence for each finding; none for most studies."""
    return [*_describe_label_order(records), *_describe_weak_teacher(records), *_describe_duplicates(records)]


def _describe_label_order(records: StudyRecords) -> Iterator[str]:
    """Yield that the teacher's labels are in another order than the data's, as its import found on validation."""
    order = records.section("teacher", "label_order")
    moved = order.get("moved")
    if not moved:
        return
    true, predicted = moved[0]
    metric = records.get_metric("val/accuracy")
    yield (
        f"The teacher's labels are in another order than the data's: it predicts {len(moved)} of {order['classes']} "
        f"classes as another one, such as class {true} as {predicted}, and would have "
        f"{metric.format(order['accuracy_in_order'])} instead of {metric.format(order['accuracy'])} "
        f"{metric.unit} validation accuracy in the right one. Reorder its last layer."
    )


def _describe_weak_teacher(records: StudyRecords) -> Iterator[str]:
    """Yield that the teacher scores near chance, or worse than a student that learned without it."""
    teacher, data = records.section("teacher"), records.section("inputs", "data")
    metrics, name = records.section("teacher", "metrics"), records.test_metric
    if _is_near_chance(metrics.get("test/accuracy"), data):
        score = _format(records, "test/accuracy", metrics["test/accuracy"])
        yield f"The teacher scores near chance: {score} test accuracy, of {data['classes']} classes. {_advise(teacher)}"
    value = metrics.get(name)
    if not isinstance(value, int | float):
        return
    for student in records.students:
        alone = _find_lone_arm(records, student)
        scores = list(group_by_seed(records, name).get(alone.name, {}).values()) if alone else []
        if alone is None or not scores or not _is_worse(records, value, statistics.compute_mean(scores).mean):
            continue
        pair = f"{_format(records, name, value)} against {_format(records, name, statistics.compute_mean(scores).mean)}"
        yield (
            f"The teacher scores worse than {student} without it: {pair} {records.get_metric(name).words} "
            f"({alone.arm}). {_advise(teacher)}"
        )


def _is_worse(records: StudyRecords, value: float, other: float) -> bool:
    return value < other if records.get_direction(records.test_metric) == "max" else value > other


def _is_near_chance(accuracy: Any, data: Mapping[str, Any]) -> bool:
    """Return whether an accuracy is not distinguishable from guessing one of the classes on the test samples."""
    classes, samples = data.get("classes"), data.get("test")
    if not (isinstance(accuracy, int | float) and isinstance(classes, int) and isinstance(samples, int) and samples):
        return False
    chance = 1 / classes
    return accuracy <= chance + CHANCE_DEVIATIONS * math.sqrt(chance * (1 - chance) / samples)


def _find_lone_arm(records: StudyRecords, student: str) -> Cell | None:
    """Return the arm that all others are compared with in the end, unless it records a distance to the teacher."""
    first = next((cell for cell in records.get_cells(student) if cell.baseline and cell.versus is None), None)
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
    found = str(records.section("inputs", "data").get("duplicates") or "")
    if found:
        yield f"Images occur in more than one split: {found}. Scores on them are too good."


def _format(records: StudyRecords, name: str, value: float) -> str:
    metric = records.get_metric(name)
    return metric.format(value) + (f" {metric.unit}" if metric.unit else "")

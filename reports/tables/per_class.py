"""The tables of further test scores: all metrics of a task, and those per class, of which a mean can hide a bad one."""

from __future__ import annotations

import numpy as np

from reports.analysis import statistics
from reports.analysis.scores import Score, list_scores
from reports.format.metrics import CLASS_PREFIX
from reports.format.table import Table
from reports.load import Cell, StudyRecords
from reports.text.results import format_mean


def make_tables(records: StudyRecords) -> list[Table]:
    """Return a table per student; none where no score of a class is recorded."""
    listed = [name for name in records.section("metrics") if name.startswith(_class_prefix(records))]
    names = [name for name in listed if name in records.confirmed and records.confirmed[name].notna().any()]
    return [_make_table(records, student, names) for student in records.students] if names else []


def make_metric_tables(records: StudyRecords) -> list[Table]:
    """Return a table per student, the teacher first; none where a single metric is measured.

    Scores of single classes are in tables of their own.
    """
    scores = [score for score in list_scores(records) if not score.metric.bare.startswith(CLASS_PREFIX)]
    tables = [
        _make_metric_table(student, [one for one in scores if one.student in ("", student)])
        for student in records.students
    ]
    return [table for table in tables if len(table.columns) > 2]


def _class_prefix(records: StudyRecords) -> str:
    """Return "test/class_f1_" for the test metric "test/f1"."""
    bare = records.get_metric(records.test_metric).bare
    return records.test_metric.removesuffix(bare) + f"{CLASS_PREFIX}{bare}_"


def _make_table(records: StudyRecords, student: str, names: list[str]) -> Table:
    cells, teacher = records.get_cells(student), records.section("teacher", "metrics")
    rows = tuple(
        (
            name.removeprefix(_class_prefix(records)),
            records.get_metric(name).format(teacher.get(name)),
            *(_format_mean(records, cell, name) for cell in cells),
        )
        for name in names
    )
    return Table(
        name=f"classes-{student}",
        caption=f"{student}: {records.get_metric(records.test_metric).label} by class",
        columns=("class", "teacher", *(cell.arm for cell in cells)),
        align="l" + "r" * (1 + len(cells)),
        rows=rows,
        notes=("± is the 95 % interval over the confirm seeds. Nothing is tested by class.",),
    )


def _format_mean(records: StudyRecords, cell: Cell, name: str) -> str:
    values = records.get_confirm_runs(cell)[name].to_numpy(dtype=float)
    values = values[np.isfinite(values)].tolist()
    return format_mean(records.get_metric(name), statistics.compute_mean(values) if values else None)


def _make_metric_table(student: str, scores: list[Score]) -> Table:
    metrics = dict.fromkeys(score.metric for score in scores if score.student)
    means = {(score.arm, score.metric): score.mean for score in scores}
    arms = dict.fromkeys(score.arm for score in scores)
    return Table(
        name=f"metrics-{student}",
        caption=f"{student}: all test metrics",
        columns=("arm", *(metric.label for metric in metrics)),
        align="l" + "r" * len(metrics),
        rows=tuple((arm, *(format_mean(metric, means.get((arm, metric))) for metric in metrics)) for arm in arms),
        kinds=tuple("reference" if arm.startswith("teacher: ") else "" for arm in arms),
        notes=("± is a 95 % t interval over the confirm seeds. Arms are judged by the metric of the comparison.",),
    )

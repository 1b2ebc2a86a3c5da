"""The means of all test metrics, of the teacher and of each arm; analysis/comparison.py judges one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from reports.analysis import statistics
from reports.analysis.comparison import group_by_seed
from reports.analysis.statistics import Mean
from reports.format.metrics import Metric
from reports.load import StudyRecords

TEST = "test/"


@dataclass(frozen=True)
class Score:
    """A test metric of one cell, or of the teacher, whose student is empty."""

    student: str
    arm: str
    metric: Metric
    mean: Mean


def list_scores(records: StudyRecords) -> list[Score]:
    """Return every test metric that was measured, of the teacher and then of each cell's confirm runs."""
    names = [name for name in records.section("metrics") if name.startswith(TEST)]
    return [*_measure_teacher(records, names), *_measure_cells(records, names)]


def to_dataframe(scores: list[Score]) -> pd.DataFrame:
    """Return the numbers of metrics.csv, in the recorded unit (accuracies as fractions)."""
    columns = ("student", "arm", "metric", "seeds", "mean", "mean_low", "mean_high")
    rows = []
    for score in scores:
        interval = score.mean.interval
        ends = (interval.low, interval.high) if interval else (None, None)
        rows.append((score.student, score.arm, score.metric.name, score.mean.n, score.mean.mean, *ends))
    return pd.DataFrame(rows, columns=columns)


def _measure_teacher(records: StudyRecords, names: list[str]) -> Iterator[Score]:
    teacher, measured = records.section("teacher"), records.section("teacher", "metrics")
    for name in names:
        if isinstance(value := measured.get(name), int | float):
            label = f"teacher: {teacher.get('name') or 'teacher'}"
            yield Score("", label, records.get_metric(name), statistics.compute_mean([float(value)]))


def _measure_cells(records: StudyRecords, names: list[str]) -> Iterator[Score]:
    tested = {name: group_by_seed(records, name) for name in names}
    for cell in records.cells:
        for name in names:
            if values := tested[name].get(cell.name):
                mean = statistics.compute_mean([*values.values()])
                yield Score(cell.student, cell.arm, records.get_metric(name), mean)

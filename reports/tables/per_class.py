"""Scores by class, where a task records them: what hides in a mean over classes."""

from __future__ import annotations

import numpy as np

from reports.analysis import statistics
from reports.format.metrics import CLASS_PREFIX
from reports.format.table import Table
from reports.load import StudyRecords


def make_class_table(records: StudyRecords, student: str) -> Table | None:
    """A student's test score of each class under each arm, the teacher's beside them; None where none is recorded.

    Means over the confirm seeds with the half width of their 95 % interval. No verdicts: nothing is tested by class.
    """
    test = records.get_metric(records.test_metric)
    prefix = records.test_metric.removesuffix(test.bare) + f"{CLASS_PREFIX}{test.bare}_"
    names = [name for name in records.section("metrics") if name.startswith(prefix) and name in records.confirmed]
    names = [name for name in names if records.confirmed[name].notna().any()]
    if not names:
        return None
    cells = records.get_cells(student)
    teacher = records.section("teacher", "metrics")
    rows = tuple(
        (
            name.removeprefix(prefix),
            records.get_metric(name).format(teacher.get(name)),
            *(_mean(records, cell.name, name) for cell in cells),
        )
        for name in names
    )
    return Table(
        name=f"classes-{student}",
        caption=f"{student}: {test.label} by class",
        columns=("class", "teacher", *(cell.arm for cell in cells)),
        align="l" + "r" * (1 + len(cells)),
        rows=rows,
        notes=("± is the 95 % interval over the confirm seeds. Nothing is tested by class.",),
    )


def _mean(records: StudyRecords, cell: str, name: str) -> str:
    values = records.confirmed.loc[records.confirmed["cell"] == cell, name].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    found, written = statistics.compute_mean(values.tolist()), records.get_metric(name)
    half = f" ± {written.format(found.interval.high - found.mean)}" if found.interval else ""
    return written.format(found.mean) + half

"""The points of fronts as confirmed on test: each cell's own, and the same students under the arms they compare with.

A point of a front is compared with the comparison arm's runs of the same student, paired by seed, so that a wider net
is no gain of a method. All points of a student share one correction with its arms (reports/analysis/comparison.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

from reports.analysis import statistics
from reports.analysis.search import list_objectives, mark_front
from reports.analysis.statistics import Mean
from reports.analysis.verdicts import Contrast, compare_pair, select_student
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords


@dataclass(frozen=True)
class FrontPoint:
    """A configuration that a cell confirms, with its test results."""

    cell: Cell
    position: int
    """Position of the arm in the study, which decides its colour."""
    point: int
    """0 for the best by validation, which the table of arms has too."""
    is_own: bool
    """Whether it is on the front of the cell's own search; the others train students of points compared with it."""
    params: Mapping[str, Any]
    costs: Mapping[str, float]
    """Means over runs of each further objective: a cost of the student, or a test metric."""
    values: Mapping[int, float]
    """The test metric by seed."""
    mean: Mean
    contrasts: tuple[Contrast, ...] = ()

    @property
    def student(self) -> dict[str, Any]:
        return select_student(self.params)

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for a single run."""
        return stdev(self.values.values()) if len(self.values) > 1 else None


def list_cost_columns(records: StudyRecords) -> dict[str, str]:
    """Return the column of confirm runs that measures each further objective: a cost, or its value on test."""
    names = list_objectives(records)[1:]
    columns = {name: name if name.startswith("student/") else "test/" + name.split("/", 1)[1] for name in names}
    return {name: column for name, column in columns.items() if column in records.confirmed_points}


def list_front_points(records: StudyRecords, student: str) -> list[FrontPoint]:
    """Return all confirmed points of a student's arms; none where no cell confirms more than one."""
    cells = records.get_cells(student)
    if not any(cell.front > 1 for cell in cells):
        return []
    arms = list(dict.fromkeys(cell.arm for cell in records.cells))
    points = [point for cell in cells for point in _list_points(records, cell, arms.index(cell.arm))]
    return [replace(point, contrasts=_compare(records, point, points)) for point in points]


def count_planned(records: StudyRecords, student: str) -> int:
    """Return the largest number of comparisons of a student's points, until all are known."""
    return sum(cell.front * len(cell.versus) for cell in records.get_cells(student) if cell.front > 1)


def _list_points(records: StudyRecords, cell: Cell, position: int) -> list[FrontPoint]:
    runs = records.confirmed_points[records.confirmed_points["cell"] == cell.name]
    own = min(cell.front, _count_front(records, cell)) if cell.searched else 1
    columns = list_cost_columns(records)
    points = []
    for point, group in runs.groupby("point"):
        values = dict(zip(group["seed"].astype(int), group[records.test_metric].astype(float), strict=True))
        points.append(
            FrontPoint(
                cell=cell,
                position=position,
                point=int(str(point)),
                is_own=int(str(point)) < own,
                params=parse_json_object(group["params"].iloc[0]),
                costs={name: float(group[column].mean()) for name, column in columns.items()},
                values=values,
                mean=statistics.compute_mean(list(values.values())),
            )
        )
    return points


def _count_front(records: StudyRecords, cell: Cell) -> int:
    """Return the number of points of a cell's front by validation; equal values or settings count once."""
    trials, objectives = mark_front(records, cell), list_objectives(records)
    front = trials[trials["front"]].reindex(columns=[*objectives, "params"])
    return max(1, front.round(12).drop_duplicates(objectives)["params"].nunique())


def _compare(records: StudyRecords, point: FrontPoint, points: Sequence[FrontPoint]) -> tuple[Contrast, ...]:
    """Compare a point of a front with the runs of the same student under each arm that its own is compared with.

    The best points of two arms that have the same student are compared by the table of arms.
    """
    if not point.is_own or point.cell.front == 1:
        return ()
    found = []
    for name in point.cell.versus:
        same = [other for other in points if other.cell.arm == name and other.student == point.student]
        if same and point.point == same[0].point == 0:
            continue
        base = same[0].cell if same else next(one for one in records.get_cells(point.cell.student) if one.arm == name)
        values = {point.cell.name: dict(point.values), base.name: dict(same[0].values) if same else {}}
        compared = point.point, same[0].point if same else 0
        found.append(compare_pair(records, point.cell, base, records.test_metric, values, compared))
    return tuple(found)

"""The comparison of a study: each arm's test results, and its planned comparisons with other arms, per student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis import published, statistics
from reports.analysis.front import FrontPoint, count_planned, list_front_points
from reports.analysis.published import Published
from reports.analysis.statistics import Mean
from reports.analysis.verdicts import Contrast, compare_cells, count_tests, format_verdict, judge
from reports.format.metrics import Metric
from reports.load import Cell, StudyRecords
from study.trial import Direction


@dataclass(frozen=True)
class Reference:
    """The teacher: a single run, listed for orientation and not compared."""

    name: str
    parameters: int | None
    value: float | None
    published: Published | None


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm."""

    arm: str
    baseline: bool
    contrasts: tuple[Contrast, ...]
    """The planned comparisons with other arms; none for the first baseline."""
    values: dict[int, float]
    """The test metric by seed."""
    mean: Mean | None
    """None if no run counts yet."""
    at_best_val: Mean | None
    """The test metric at the best validation epoch, if recorded; verdicts do not use it."""
    published: Published | None = None
    parameters: int | None = None
    """Parameters of the arm's net; None if all arms have the same one."""
    mixed: str = ""
    """The reason why the arm's own runs should not be averaged."""


@dataclass(frozen=True)
class Comparison:
    """The arms of one student."""

    student: str
    parameters: int | None
    metric: Metric
    direction: Direction
    teacher: Reference | None
    rows: tuple[ArmResult, ...]
    seeds: int
    """Planned per arm; 0 if not recorded."""
    points: tuple[FrontPoint, ...] = ()
    """The confirmed points of fronts, if there are several of an arm; each is compared at its own student."""
    tests_to_come: int = 0
    """Comparisons of points that are not known yet, in an unfinished study."""

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        return tuple(contrast for row in self.rows for contrast in row.contrasts)

    @property
    def tests(self) -> int:
        """The number of tests that share Holm's correction."""
        return count_tests(self.contrasts) + len(self.point_contrasts) + self.tests_to_come

    @property
    def point_contrasts(self) -> tuple[Contrast, ...]:
        return tuple(contrast for point in self.points for contrast in point.contrasts)

    @property
    def claims(self) -> tuple[Contrast, ...]:
        """The comparisons of arms that are not baselines; if every arm is a baseline, all comparisons."""
        return tuple(contrast for contrast in self.contrasts if not contrast.baseline) or self.contrasts


@lru_cache(maxsize=16)
def compare_arms(records: StudyRecords) -> tuple[Comparison, ...]:
    """Return one comparison per student in the study's order; cached, since tables, figures and text all need it."""
    return tuple(_compare_student(records, student) for student in records.students)


def to_dataframe(comparisons: tuple[Comparison, ...]) -> pd.DataFrame:
    """Return the numbers of comparison.csv, in the recorded unit (accuracies as fractions).

    One row per planned comparison of an arm; an arm without any has one row.
    """
    return pd.DataFrame(
        [
            _to_row(comparison, row, contrast)
            for comparison in comparisons
            for row in comparison.rows
            for contrast in row.contrasts or (None,)
        ]
    )


def _compare_student(records: StudyRecords, student: str) -> Comparison:
    tested = group_by_seed(records, records.test_metric)
    rows = [_measure_arm(records, cell, tested) for cell in records.get_cells(student)]
    points = list_front_points(records, student)
    known = [contrast for row in rows for contrast in row.contrasts]
    known += [contrast for point in points for contrast in point.contrasts]
    on_points = sum(len(point.contrasts) for point in points)
    to_come = 0 if records.finished else max(0, count_planned(records, student) - on_points)
    judged = iter(judge(known, to_come))
    parameters = records.section("students", student).get("parameters")
    return Comparison(
        student=student,
        parameters=parameters if isinstance(parameters, int) else None,
        metric=records.get_metric(records.test_metric),
        direction=records.get_direction(records.test_metric),
        teacher=_describe_teacher(records),
        rows=tuple(replace(row, contrasts=tuple(next(judged) for _ in row.contrasts)) for row in rows),
        seeds=records.get_budget("seeds"),
        points=tuple(replace(one, contrasts=tuple(next(judged) for _ in one.contrasts)) for one in points),
        tests_to_come=to_come,
    )


def group_by_seed(records: StudyRecords, column: str) -> dict[str, dict[int, float]]:
    """Return a metric of the counted confirm runs by cell and seed."""
    if column not in records.confirmed:
        return {}
    rows = records.confirmed[np.isfinite(records.confirmed[column])]
    return {
        str(cell): dict(zip(group["seed"].astype(int), group[column].astype(float), strict=True))
        for cell, group in rows.groupby("cell", sort=False)
    }


def _measure_arm(records: StudyRecords, cell: Cell, tested: dict[str, dict[int, float]]) -> ArmResult:
    values = tested.get(cell.name, {})
    bases = [other for name in cell.versus for other in records.get_cells(cell.student) if other.arm == name]
    at_best = group_by_seed(records, "test_at_best_val/" + records.test_metric.split("/", 1)[-1]).get(cell.name, {})
    return ArmResult(
        arm=cell.arm,
        baseline=cell.baseline,
        contrasts=compare_cells(records, cell, bases, tested),
        values=values,
        mean=statistics.compute_mean(list(values.values())) if values else None,
        at_best_val=statistics.compute_mean(list(at_best.values())) if at_best else None,
        published=_find_published(records, cell),
        parameters=records.section("students", cell.name).get("parameters") if cell.searches_student else None,
        mixed=records.explain_mixed_code(cell),
    )


def _find_published(records: StudyRecords, cell: Cell) -> Published | None:
    """Return the paper's figure of a cell in the recorded unit; a difference only if it is to the same arm."""
    if not records.followed_protocol or not cell.published:
        return None
    metric = records.get_metric(records.test_metric)
    methods = {c.arm: (c.published or c.arm).lower() for c in records.get_cells(cell.student)}
    versus = (None, *(methods.get(name) for name in cell.versus))
    found = published.find_figures(records.followed_protocol, cell.student, cell.published.lower())
    return _select_single([row for row in found if row.is_of_metric(metric.bare) and row.versus in versus], metric)


def _describe_teacher(records: StudyRecords) -> Reference | None:
    teacher = records.section("teacher")
    if not teacher:
        return None
    name, value = str(teacher.get("name") or "teacher"), records.section("teacher", "metrics").get(records.test_metric)
    metric = records.get_metric(records.test_metric)
    found = published.find_figures(records.followed_protocol, name, "teacher")
    parameters = teacher.get("parameters")
    return Reference(
        name=name,
        parameters=parameters if isinstance(parameters, int) else None,
        value=float(value) if isinstance(value, int | float) else None,
        published=_select_single([row for row in found if row.is_of_metric(metric.bare)], metric),
    )


def _select_single(found: list[Published], metric: Metric) -> Published | None:
    """Return a single figure in the recorded unit; None if a paper has several, which differ in settings."""
    return replace(found[0], value=found[0].value / metric.factor) if len(found) == 1 else None


def _to_row(comparison: Comparison, row: ArmResult, contrast: Contrast | None) -> dict[str, Any]:
    mean, paired, figure = row.mean, contrast.paired if contrast else None, row.published
    interval, spread = mean.interval if mean else None, paired.interval if paired else None
    return {
        "student": comparison.student,
        "arm": row.arm,
        "baseline": row.baseline,
        "parameters": comparison.parameters if row.parameters is None else row.parameters,
        "metric": comparison.metric.name,
        "seeds": mean.n if mean else 0,
        "mean": mean.mean if mean else None,
        "mean_low": interval.low if interval else None,
        "mean_high": interval.high if interval else None,
        "at_best_val": row.at_best_val.mean if row.at_best_val else None,
        "versus": contrast.versus if contrast else None,
        "pairs": paired.n if paired else 0,
        "difference": paired.difference if paired else None,
        "difference_low": spread.low if spread else None,
        "difference_high": spread.high if spread else None,
        "p": paired.p if paired else None,
        "p_holm": contrast.p if contrast else None,
        "margin": contrast.margin if contrast else None,
        "margin_p_holm": contrast.margin_p if contrast else None,
        "verdict": format_verdict(contrast) if contrast else None,
        "seeds_needed": contrast.seeds_needed if contrast else None,
        "tuning_alone": contrast.tuning_alone if contrast else None,
        "published": figure.value if figure else None,
        "published_versus": figure.versus if figure else None,
    }

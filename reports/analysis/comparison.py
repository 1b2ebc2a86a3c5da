"""The comparison of a study: each arm's test results, its difference to the arm it is compared with, and a verdict.

There is one comparison per student. Holm's correction covers all comparisons *planned* for a student; one without
paired runs so far enters with p = 1, so that a verdict is never easier to reach in an unfinished study.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from reports.analysis import published, statistics
from reports.analysis.published import Published
from reports.analysis.statistics import Direction, Mean, Paired, Verdict
from reports.format.metrics import Metric
from reports.load import Cell, StudyRecords


@dataclass(frozen=True)
class Reference:
    """The teacher: a single run, listed for orientation and not compared."""

    name: str
    parameters: int | None
    value: float | None
    published: Published | None


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm: a row of the comparison table."""

    arm: str
    baseline: bool
    versus: str | None
    values: dict[int, float]
    """The test metric by seed."""
    mean: Mean | None
    """None if no run counts yet."""
    at_best_val: Mean | None
    """The test metric at the best validation epoch, if recorded; verdicts do not use it."""
    paired: Paired | None
    differences: tuple[float, ...]
    """Differences of paired runs, one per seed that both arms have."""
    p: float | None = None
    """Holm-corrected."""
    verdict: Verdict | None = None
    seeds_needed: int | None = None
    """Seeds with which an undecided comparison would detect the observed difference with 80 % power."""
    published: Published | None = None
    not_judged: str = ""
    """The reason why the difference is not judged although both arms have runs."""
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

    @property
    def comparisons(self) -> int:
        return sum(row.versus is not None for row in self.rows)

    @property
    def claims(self) -> tuple[ArmResult, ...]:
        """The compared rows that are not baselines; if every arm is a baseline, all compared rows."""
        compared = tuple(row for row in self.rows if row.versus is not None)
        return tuple(row for row in compared if not row.baseline) or compared


@lru_cache(maxsize=16)
def compare_arms(records: StudyRecords) -> tuple[Comparison, ...]:
    """Return one comparison per student in the study's order; cached, since tables, figures and text all need it."""
    return tuple(_compare_student(records, student) for student in records.students)


def to_dataframe(comparisons: tuple[Comparison, ...]) -> pd.DataFrame:
    """Return all comparisons as the numbers of comparison.csv, in the recorded unit (accuracies as fractions)."""
    return pd.DataFrame([_to_row(comparison, row) for comparison in comparisons for row in comparison.rows])


def format_verdict(row: ArmResult) -> str | None:
    """Return the verdict in words; None if nothing is compared or measured."""
    return f"not judged: {row.not_judged}" if row.not_judged else row.verdict


def _compare_student(records: StudyRecords, student: str) -> Comparison:
    cells = records.get_cells(student)
    tested = group_by_seed(records, records.test_metric)
    rows = [_measure_arm(records, cell, tested) for cell in cells]
    parameters = records.section("students", student).get("parameters")
    return Comparison(
        student=student,
        parameters=parameters if isinstance(parameters, int) else None,
        metric=records.get_metric(records.test_metric),
        direction=records.get_direction(records.test_metric),
        teacher=_describe_teacher(records),
        rows=tuple(_add_verdicts(rows)),
        seeds=records.get_budget("seeds"),
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
    base = next((other for other in records.get_cells(cell.student) if other.arm == cell.versus), None)
    values, other = tested.get(cell.name, {}), tested.get(base.name, {}) if base else {}
    mixed = records.explain_mixed_code(cell, base) if base and values and other else ""
    shared = [] if mixed else sorted(values.keys() & other.keys())
    at_best = group_by_seed(records, "test_at_best_val/" + records.test_metric.split("/", 1)[-1]).get(cell.name, {})
    return ArmResult(
        arm=cell.arm,
        baseline=cell.baseline,
        versus=cell.versus,
        values=values,
        mean=statistics.compute_mean(list(values.values())) if values else None,
        at_best_val=statistics.compute_mean(list(at_best.values())) if at_best else None,
        paired=statistics.compare_paired(
            [values[i] for i in shared], [other[i] for i in shared], records.get_direction(records.test_metric)
        )
        if shared
        else None,
        differences=tuple(values[i] - other[i] for i in shared),
        published=_find_published(records, cell),
        not_judged=mixed,
        mixed=records.explain_mixed_code(cell),
    )


def _add_verdicts(rows: list[ArmResult]) -> list[ArmResult]:
    """Return the rows with corrected p values and verdicts."""
    compared = [index for index, row in enumerate(rows) if row.versus is not None]
    adjusted = statistics.adjust_by_holm([paired.p if (paired := rows[i].paired) else 1.0 for i in compared])
    judged = list(rows)
    for index, p in zip(compared, adjusted, strict=True):
        if paired := rows[index].paired:
            verdict = statistics.decide_verdict(paired, p)
            needed = statistics.seeds_needed(paired.difference, paired.sd, len(compared))
            judged[index] = replace(
                rows[index],
                p=p,
                verdict=verdict,
                # a single pair has no spread, without which no number of seeds can be estimated
                seeds_needed=needed if verdict == "undecided" and paired.n > 1 else None,
            )
    return judged


def _find_published(records: StudyRecords, cell: Cell) -> Published | None:
    """Return the paper's figure of a cell in the recorded unit; a difference only if it is to the same arm."""
    if not records.followed_protocol or not cell.published:
        return None
    metric = records.get_metric(records.test_metric)
    methods = {c.arm: (c.published or c.arm).lower() for c in records.get_cells(cell.student)}
    versus = methods.get(cell.versus or "")
    found = published.find_figures(records.followed_protocol, cell.student, cell.published.lower())
    return _select_single(
        [row for row in found if row.is_of_metric(metric.bare) and row.versus in (None, versus)], metric
    )


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


def _to_row(comparison: Comparison, row: ArmResult) -> dict[str, Any]:
    mean, paired, figure = row.mean, row.paired, row.published
    interval, spread = mean.interval if mean else None, paired.interval if paired else None
    return {
        "student": comparison.student,
        "arm": row.arm,
        "baseline": row.baseline,
        "metric": comparison.metric.name,
        "seeds": mean.n if mean else 0,
        "mean": mean.mean if mean else None,
        "mean_low": interval.low if interval else None,
        "mean_high": interval.high if interval else None,
        "at_best_val": row.at_best_val.mean if row.at_best_val else None,
        "versus": row.versus,
        "pairs": paired.n if paired else 0,
        "difference": paired.difference if paired else None,
        "difference_low": spread.low if spread else None,
        "difference_high": spread.high if spread else None,
        "p": paired.p if paired else None,
        "p_holm": row.p,
        "verdict": format_verdict(row),
        "seeds_needed": row.seeds_needed,
        "published": figure.value if figure else None,
        "published_versus": figure.versus if figure else None,
    }

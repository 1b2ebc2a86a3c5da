"""Comparisons that reach over students: one verdict on an arm for all of them, and nets compared with other nets.

An arm's differences to another arm, by student and seed, are tested together: each student is a stratum, within which
runs are paired by seed, and the difference is the mean of the students' means. Holm's correction covers all pairs of
arms. Nets are paired by seed too, which gives them equal data order and nothing else in common.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reports.analysis import statistics
from reports.analysis.comparison import ArmResult, Comparison, compare_arms, group_by_seed
from reports.analysis.verdicts import Contrast, compare_pair, judge
from reports.format.metrics import Metric
from reports.load import StudyRecords

ALL_STUDENTS = "all students"


@dataclass(frozen=True)
class NetContrast:
    """A planned comparison of two cells of different students by one metric."""

    metric: Metric
    contrast: Contrast


def pool_students(records: StudyRecords) -> Comparison | None:
    """Return the comparison of arms over all students that share them; None if no two students do."""
    comparisons = compare_arms(records)
    groups: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in (contrast for comparison in comparisons for contrast in comparison.contrasts):
        groups.setdefault((contrast.arm, contrast.versus), []).append(contrast)
    pooled = judge([_pool(group) for group in groups.values() if len(group) > 1])
    if not pooled:
        return None
    arms = {one.arm: one.baseline for one in pooled}
    return Comparison(
        student=ALL_STUDENTS,
        parameters=None,
        metric=comparisons[0].metric,
        direction=comparisons[0].direction,
        teacher=None,
        rows=tuple(
            ArmResult(arm, baseline, tuple(one for one in pooled if one.arm == arm), {}, None, None)
            for arm, baseline in arms.items()
        ),
        seeds=comparisons[0].seeds,
    )


def _pool(group: list[Contrast]) -> Contrast:
    first = group[0]
    why = next((one.not_judged for one in group if one.not_judged), "")
    known = [one for one in group if one.paired is not None]
    complete = len(known) == len(group) and not why
    weighted = statistics.weight_alike([np.array(one.differences) for one in known]) if complete else np.array([])
    differences = tuple(weighted.tolist())
    direction = known[0].paired.direction if known and known[0].paired else "max"
    return Contrast(
        arm=first.arm,
        versus=first.versus,
        baseline=first.baseline,
        paired=statistics.summarize_differences(differences, direction, first.test, 0.0) if complete else None,
        differences=differences,
        margin=first.margin,
        tuning_alone=first.tuning_alone,
        not_judged=why,
        test=first.test,
        recipes_differ=first.recipes_differ,
        students_differ=any(one.students_differ for one in group),
    )


def compare_nets(records: StudyRecords) -> tuple[NetContrast, ...]:
    """Return the planned comparisons between students, which share one correction; named by cells instead of arms."""
    cells = {cell.name: cell for cell in records.cells}
    planned = records.study.get("net_comparisons")
    metrics, found = [], []
    for entry in planned if isinstance(planned, list) else ():
        for name in entry["metrics"]:
            tested = group_by_seed(records, name)
            for other in entry["versus"]:
                contrast = compare_pair(records, cells[entry["cell"]], cells[other], name, tested)
                found.append(replace(contrast, arm=entry["cell"], versus=other))
                metrics.append(records.get_metric(name))
    return tuple(NetContrast(metric, contrast) for metric, contrast in zip(metrics, judge(found), strict=True))

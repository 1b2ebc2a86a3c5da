"""The path of an ablation (study/ablation.py): arms of which each is compared with the one before it, on validation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from reports.analysis.comparison import group_by_seed
from reports.analysis.statistics import Mean, Paired, compare_paired, compute_mean
from reports.load import StudyRecords

MIN_ARMS = 3
"""Minimum arms of a path; of two, the comparison shows the same."""


@dataclass(frozen=True)
class Step:
    """An arm of the path, in the recorded unit; without `change` for the first one."""

    arm: str
    score: Mean
    change: Paired | None
    """Its differences to the arm before it, over the seeds of both."""


def measure_path(records: StudyRecords, student: str) -> tuple[Step, ...]:
    """Return the steps of a student's path by the study's validation metric.

    Empty if the arms form no path, or if an arm has no confirm run that was scored on validation.
    """
    cells = records.get_cells(student)
    scores = group_by_seed(records, records.metric)
    is_path = len(cells) >= MIN_ARMS and [cell.versus for cell in cells] == [(), *((cell.arm,) for cell in cells[:-1])]
    if not is_path or not all(cell.name in scores for cell in cells) or records.explain_mixed_code(*cells):
        return ()
    steps = [Step(cells[0].arm, compute_mean([*scores[cells[0].name].values()]), None)]
    for before, cell in pairwise(cells):
        old, new = scores[before.name], scores[cell.name]
        shared = [seed for seed in new if seed in old]
        pairs = [new[seed] for seed in shared], [old[seed] for seed in shared]
        change = compare_paired(*pairs, records.get_direction(records.metric)) if shared else None
        steps.append(Step(cell.arm, compute_mean([*new.values()]), change))
    return tuple(steps)

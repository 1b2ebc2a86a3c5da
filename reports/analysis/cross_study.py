"""The comparison of two or more studies, cell by cell: which results are comparable, and their differences.

reports/analysis/comparison.py compares the arms within a study. Here each cell is compared with the same cell of
another study: with the first study that has the cell. Studies with the same study seed have the same confirm seeds,
which study/study.py derives from it alone, so their runs are paired; runs of other studies are compared unpaired.
Results on other data, of another metric or under another protocol are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reports.analysis import power, statistics
from reports.analysis.comparison import compare_arms
from reports.analysis.statistics import Mean, Paired
from reports.analysis.unpaired import compare_unpaired
from reports.analysis.verdicts import Verdict, adjust_by_holm, decide_verdict
from reports.format.metrics import Metric
from reports.load import StudyRecords
from study.trial import Direction

Kind = Literal["paired", "unpaired", "repeated"]


@dataclass(frozen=True)
class CellResult:
    """The results of a cell in one of the studies."""

    arm: str
    study: int
    """Position of the study."""
    values: Mapping[int, float]
    """The test metric by seed."""
    metric: Metric
    direction: Direction
    mean: Mean | None
    versus: int | None = None
    """Position of the study it is compared with; None for the first study that has the cell."""
    incomparable: str = ""
    """The reason why no difference is computed."""
    mixed: str = ""
    """The reason why its own runs should not be averaged."""
    not_judged: str = ""
    """The reason why the difference is not judged although the results are comparable."""
    kind: Kind = "paired"
    """The kind of the difference: "repeated" if both studies ran the same trials, so that no setting can have caused
    it."""
    difference: Paired | None = None
    p: float | None = None
    """Holm-corrected."""
    verdict: Verdict | None = None
    seeds_needed: int | None = None

    @property
    def judged(self) -> bool:
        """True if Holm's correction counts the row as a comparison, with or without results so far."""
        return self.versus is not None and not self.incomparable and self.kind != "repeated"


@dataclass(frozen=True)
class StudentComparison:
    """The cells of one student, for each arm the studies that have it."""

    name: str
    rows: tuple[CellResult, ...]

    @property
    def comparisons(self) -> int:
        return sum(row.judged for row in self.rows)


def compare_studies(studies: Sequence[StudyRecords]) -> tuple[StudentComparison, ...]:
    """Return a comparison per student that two or more studies have under an arm of the same name."""
    rows = [_list_cells(index, records) for index, records in enumerate(studies)]
    cells = dict.fromkeys(cell for study in rows for cell in study)
    shared = [cell for cell in cells if sum(cell in found for found in rows) > 1]
    compared: dict[str, list[CellResult]] = {}
    for student, arm in shared:
        first, *others = (found[student, arm] for found in rows if (student, arm) in found)
        compared.setdefault(student, []).append(first)
        compared[student] += [_compare_row(student, row, first, studies) for row in others]
    return tuple(StudentComparison(name, _judge(cells)) for name, cells in compared.items())


def explain_incomparable(one: StudyRecords, other: StudyRecords) -> list[str]:
    """Return why test results of two studies are not comparable; empty if they are."""
    reasons = [
        ("other data", _describe_data(one), _describe_data(other)),
        ("another metric", one.test_metric, other.test_metric),
        ("another direction", one.get_direction(one.test_metric), other.get_direction(other.test_metric)),
        ("trained on another part", _describe_training_split(one), _describe_training_split(other)),
        ("another measure", _describe_measure(one), _describe_measure(other)),
        ("another protocol", one.followed_protocol or "no paper's", other.followed_protocol or "no paper's"),
    ]
    found = [f"{what}: {left} and {right}" for what, left, right in reasons if left != right]
    return found or ([] if _get_fingerprint(one) else ["it is not on record which data they used"])


def _describe_measure(records: StudyRecords) -> str:
    """Return how the metric is computed, if the task records it: the scale and channel of a PSNR."""
    measure = records.section("inputs", "data", "measure")
    return ", ".join(f"{name} {value}" for name, value in measure.items()) or "the metric's usual one"


def _list_cells(index: int, records: StudyRecords) -> dict[tuple[str, str], CellResult]:
    """Return a study's cells by student and arm."""
    metric, direction = records.get_metric(records.test_metric), records.get_direction(records.test_metric)
    return {
        (table.student, row.arm): CellResult(row.arm, index, row.values, metric, direction, row.mean, mixed=row.mixed)
        for table in compare_arms(records)
        for row in table.rows
    }


def _judge(rows: list[CellResult]) -> tuple[CellResult, ...]:
    """Return the rows of one table with corrected p values and verdicts."""
    judged = [index for index, row in enumerate(rows) if row.judged]
    adjusted = adjust_by_holm([found.p if (found := rows[index].difference) else 1.0 for index in judged])
    for index, p in zip(judged, adjusted, strict=True):
        rows[index] = _add_verdict(rows[index], p, len(judged))
    return tuple(rows)


def pool_students(students: Sequence[StudentComparison]) -> StudentComparison | None:
    """Return each arm's differences over all students at once; None if no arm is paired by seed in two of them.

    Pairs share student and seed; each student counts alike, whatever its number of seeds.
    """
    groups: dict[tuple[str, int], list[tuple[CellResult, CellResult]]] = {}
    for student in students:
        firsts = {row.arm: row for row in student.rows if row.versus is None}
        for row in student.rows:
            if row.difference and row.kind == "paired":
                groups.setdefault((row.arm, row.study), []).append((row, firsts[row.arm]))
    shared = [pairs for pairs in groups.values() if len(pairs) > 1]
    if not shared:
        return None
    rows = {pairs[0][0].arm: replace(pairs[0][1], values={}, mean=None) for pairs in shared}
    pooled = [row for arm, first in rows.items() for row in (first, *(_pool(p) for p in shared if p[0][0].arm == arm))]
    return StudentComparison("all students", _judge(pooled))


def _pool(pairs: list[tuple[CellResult, CellResult]]) -> CellResult:
    one = pairs[0][0]
    parts = [statistics.subtract_paired(*_pair_by_seed(*pair), one.metric.resolution) for pair in pairs]
    difference = statistics.summarize_differences(statistics.weight_alike(parts), one.direction, resolution=0.0)
    return replace(one, values={}, mean=None, mixed="", difference=difference)


def _pair_by_seed(row: CellResult, other: CellResult) -> tuple[list[float], list[float]]:
    """Return both cells' values with the seeds that they share."""
    seeds = sorted(row.values.keys() & other.values.keys())
    return [row.values[seed] for seed in seeds], [other.values[seed] for seed in seeds]


def _compare_row(student: str, row: CellResult, first: CellResult, studies: Sequence[StudyRecords]) -> CellResult:
    one, other = studies[first.study], studies[row.study]
    reasons = explain_incomparable(one, other)
    if _describe_student(one, student) != _describe_student(other, student):
        reasons.append("another net under this student's name")
    mixed = "" if reasons else row.mixed or first.mixed
    row = replace(row, versus=first.study, incomparable="; ".join(reasons), not_judged=mixed)
    if reasons or mixed or not row.values or not first.values:
        return row
    values, others = _pair_by_seed(row, first)
    if not values:
        every = [*row.values.values()], [*first.values.values()]
        return replace(row, kind="unpaired", difference=compare_unpaired(*every, row.direction, row.metric.resolution))
    kind: Kind = "repeated" if _ran_same_trials(one, other, f"{student} / {row.arm}") else "paired"
    difference = statistics.compare_paired(values, others, row.direction, resolution=row.metric.resolution)
    return replace(row, kind=kind, difference=difference)


def _add_verdict(row: CellResult, p: float, comparisons: int) -> CellResult:
    found = row.difference
    if found is None:
        return row
    verdict = decide_verdict(found, p)
    known = verdict == "undecided" and row.kind == "paired" and found.n > 1
    needed = power.seeds_needed(found.difference, found.sd, comparisons) if known else None
    return replace(row, p=p, verdict=verdict, seeds_needed=needed)


def _describe_data(records: StudyRecords) -> str:
    return f"{records.data_name} ({_get_fingerprint(records) or 'no fingerprint'})"


def _get_fingerprint(records: StudyRecords) -> str:
    return str(records.section("inputs", "data").get("fingerprint") or "")


def _describe_training_split(records: StudyRecords) -> str:
    """Return the split that confirm runs trained on; with its size if it is the training split alone."""
    split = str(records.study.get("confirm_on") or "train+val")
    size = records.section("inputs", "data").get("train") if split == "train" else None
    return f"{split}, {size} samples" if size else split


def _describe_student(records: StudyRecords, student: str) -> tuple[Any, Any]:
    """Return the settings of a student, as far as study.json has them, and its number of parameters."""
    described = records.section("study").get("students")
    known = isinstance(described, list) and len(described) == len(records.students)
    settings = described[records.students.index(student)] if known and described else None
    return settings, records.section("students", student).get("parameters")


def _ran_same_trials(one: StudyRecords, other: StudyRecords, cell: str) -> bool:
    """Return whether the runs of all shared seeds have the same ids: equal configuration, data, teacher and seed."""
    ids = []
    for records in (one, other):
        runs = records.confirmed[records.confirmed["cell"] == cell]
        ids.append(dict(zip(runs["seed"], runs["trial_id"], strict=True)))
    return all(ids[0][seed] == ids[1][seed] for seed in ids[0].keys() & ids[1].keys())

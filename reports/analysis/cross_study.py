"""Two or more studies cell by cell: which numbers may be compared at all, and what may then be said of them.

Within a study, arms are compared by reports/analysis/comparison.py. Here one cell is compared with itself in other
studies: each study with the first one that has the cell. Studies with the same seed share their confirm seeds,
whatever their names, since study/study.py derives these from it alone; their runs are paired. Others are compared
unpaired. What was measured on other data, by another metric or under another protocol is not compared.
Rendering is left to compare_tables.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from reports.analysis import statistics
from reports.analysis.comparison import compare_arms
from reports.analysis.statistics import Direction, Interval, Mean, Verdict
from reports.format.metrics import Metric
from reports.load import StudyRecords

Kind = Literal["paired", "unpaired", "repeated"]

MOST_PERMUTATIONS = 2**statistics.MAX_EXACT_PAIRS
"""Ways to deal the runs out to two studies up to which all are counted; beyond, seeded random ones stand for them."""


@dataclass(frozen=True)
class Difference:
    """A cell's mean in one study minus its mean in another."""

    kind: Kind
    """ "repeated": both ran the very same trials, so that whatever differs is not a setting's doing."""
    n: int
    """Shared seeds; for an unpaired one, the runs of the smaller side."""
    difference: float
    interval: Interval | None
    """BCa bootstrap if paired, else Welch's t; None where there are too few runs for one."""
    p: float
    """Before any correction."""
    sd: float = 0.0
    """Of paired differences."""


@dataclass(frozen=True)
class CellResult:
    """A cell in one of the studies."""

    arm: str
    study: int
    """Which one, by position."""
    values: Mapping[int, float]
    """The test metric by seed."""
    metric: Metric
    direction: Direction
    mean: Mean | None
    versus: int | None = None
    """The study it is compared with; None for that study itself."""
    why_not: str = ""
    """Why no difference may be taken."""
    mixed: str = ""
    """Why its own runs are not of one thing."""
    not_judged: str = ""
    """Why nothing is said of its difference, although one could be taken."""
    difference: Difference | None = None
    p: float | None = None
    """Holm-corrected."""
    verdict: Verdict | None = None
    seeds_needed: int | None = None

    @property
    def judged(self) -> bool:
        """Whether this row is one of the comparisons that Holm's correction counts, measured yet or not."""
        repeated = self.difference is not None and self.difference.kind == "repeated"
        return self.versus is not None and not self.why_not and not repeated


@dataclass(frozen=True)
class StudentComparison:
    """One student's table."""

    name: str
    rows: tuple[CellResult, ...]

    @property
    def comparisons(self) -> int:
        return sum(row.judged for row in self.rows)


def compare_studies(studies: Sequence[StudyRecords]) -> tuple[StudentComparison, ...]:
    """A table per student that two or more studies have under an arm of one name, in the order of the studies."""
    rows = [_rows(index, records) for index, records in enumerate(studies)]
    cells = dict.fromkeys(cell for study in rows for cell in study)
    shared = [cell for cell in cells if sum(cell in found for found in rows) > 1]
    return tuple(
        _student(
            name, [[found[cell] for found in rows if cell in found] for cell in shared if cell[0] == name], studies
        )
        for name in dict.fromkeys(student for student, _ in shared)
    )


def explain_incomparable(one: StudyRecords, other: StudyRecords) -> list[str]:
    """Why test results of two studies cannot be compared; empty if they can."""
    reasons = [
        ("other data", _data(one), _data(other)),
        ("another metric", one.test_metric, other.test_metric),
        ("another direction", one.get_direction(one.test_metric), other.get_direction(other.test_metric)),
        ("trained on another part", _trained_on(one), _trained_on(other)),
        ("another measure", _measure(one), _measure(other)),
        ("another protocol", one.followed_protocol or "no paper's", other.followed_protocol or "no paper's"),
    ]
    found = [f"{what}: {left} and {right}" for what, left, right in reasons if left != right]
    return found or ([] if _fingerprint(one) else ["it is not on record which data they used"])


def _measure(records: StudyRecords) -> str:
    """What a metric of one name is of, where the task tells it: the scale and channel of a PSNR."""
    told = records.section("inputs", "data", "measure")
    return ", ".join(f"{name} {value}" for name, value in told.items()) or "the metric's usual one"


def compare_unpaired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """mean(a) − mean(b) of independent runs, by the exact two-sided permutation test of the difference of means.

    It asks how often a mean difference this large comes about by dealing the same runs out to both sides at random,
    and like the sign-flip test assumes no distribution: with n runs on each side p is never below 2/C(2n, n).
    Source: Pitman 1937, "Significance tests which may be applied to samples from any populations", I.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference, n = float(x.mean() - y.mean()), min(len(x), len(y))
    if n < 2:
        return Difference("unpaired", n, difference, None, 1.0)
    largest = max(abs(x).max(), abs(y).max()) or 1.0
    ways = math.comb(len(x) + len(y), len(x))
    test = stats.permutation_test(
        (x / largest, y / largest),
        _difference_of_means,
        vectorized=True,
        n_resamples=ways if ways <= MOST_PERMUTATIONS else statistics.RESAMPLES,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return Difference("unpaired", n, difference, _welch_interval(x, y), float(test.pvalue))


def _difference_of_means(x: Any, y: Any, axis: int) -> Any:
    """Rounded, of values in [−1, 1]: differences that are equal but for the order of sums must count as equal."""
    return np.round(x.mean(axis=axis) - y.mean(axis=axis), 9)


def _welch_interval(x: Any, y: Any) -> Interval:
    """95 %, without equal variances. Source: Welch 1947."""
    if np.ptp(x) == np.ptp(y) == 0:
        return Interval(float(x.mean() - y.mean()), float(x.mean() - y.mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal values on one side, which are fine
        found = stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    return Interval(float(found.low), float(found.high))


def _rows(index: int, records: StudyRecords) -> dict[tuple[str, str], CellResult]:
    """A study's cells by student and arm."""
    written, direction = records.get_metric(records.test_metric), records.get_direction(records.test_metric)
    return {
        (table.student, row.arm): CellResult(row.arm, index, row.values, written, direction, row.mean, mixed=row.mixed)
        for table in compare_arms(records)
        for row in table.rows
    }


def _student(name: str, cells: Iterable[list[CellResult]], studies: Sequence[StudyRecords]) -> StudentComparison:
    rows = [row for cell in cells for row in (cell[0], *(_compared(name, row, cell[0], studies) for row in cell[1:]))]
    judged = [index for index, row in enumerate(rows) if row.judged]
    adjusted = statistics.adjust_by_holm([found.p if (found := rows[index].difference) else 1.0 for index in judged])
    for index, p in zip(judged, adjusted, strict=True):
        rows[index] = _with_verdict(rows[index], p, len(judged))
    return StudentComparison(name, tuple(rows))


def _compared(student: str, row: CellResult, first: CellResult, studies: Sequence[StudyRecords]) -> CellResult:
    one, other = studies[first.study], studies[row.study]
    reasons = explain_incomparable(one, other)
    if _description(one, student) != _description(other, student):
        reasons.append("another net under this student's name")
    mixed = "" if reasons else row.mixed or first.mixed
    row = replace(row, versus=first.study, why_not="; ".join(reasons), not_judged=mixed)
    if reasons or mixed or not row.values or not first.values:
        return row
    return replace(row, difference=_difference(row, first, _same_trials(one, other, f"{student} / {row.arm}")))


def _difference(row: CellResult, first: CellResult, repeated: bool) -> Difference:
    seeds = sorted(row.values.keys() & first.values.keys())
    if not seeds:
        return compare_unpaired(list(row.values.values()), list(first.values.values()))
    found = statistics.compare_paired([row.values[s] for s in seeds], [first.values[s] for s in seeds], row.direction)
    kind: Kind = "repeated" if repeated else "paired"
    return Difference(kind, found.n, found.difference, found.interval, found.p, found.sd)


def _with_verdict(row: CellResult, p: float, comparisons: int) -> CellResult:
    found = row.difference
    if found is None:
        return row
    improves = found.difference > 0 if row.direction == "max" else found.difference < 0
    verdict: Verdict = "undecided" if p > statistics.LEVEL else "better" if improves else "worse"
    known = verdict == "undecided" and found.kind == "paired" and found.n > 1
    needed = statistics.seeds_needed(found.difference, found.sd, comparisons) if known else None
    return replace(row, p=p, verdict=verdict, seeds_needed=needed)


def _data(records: StudyRecords) -> str:
    return f"{records.data_name} ({_fingerprint(records) or 'no fingerprint'})"


def _fingerprint(records: StudyRecords) -> str:
    return str(records.section("inputs", "data").get("fingerprint") or "")


def _trained_on(records: StudyRecords) -> str:
    """What confirm trained on; of the training split alone, how much that is."""
    split = str(records.study.get("confirm_on") or "train+val")
    size = records.section("inputs", "data").get("train") if split == "train" else None
    return f"{split}, {size} samples" if size else split


def _description(records: StudyRecords, student: str) -> Any:
    """What a student of this name is: its settings, as far as study.json holds them, and its size."""
    described = records.section("study").get("students")
    position = records.students.index(student)
    known = isinstance(described, list) and len(described) == len(records.students)
    return [
        described[position] if known and described else None,
        records.section("students", student).get("parameters"),
    ]


def _same_trials(one: StudyRecords, other: StudyRecords, cell: str) -> bool:
    """Whether all runs of a cell's shared seeds have the same ids: same configuration, data, teacher and seed."""
    by_seed = [dict(zip(r["seed"], r["trial_id"], strict=True)) for r in (_of(one, cell), _of(other, cell))]
    return all(by_seed[0][seed] == by_seed[1][seed] for seed in by_seed[0].keys() & by_seed[1].keys())


def _of(records: StudyRecords, cell: str) -> Any:
    return records.confirmed[records.confirmed["cell"] == cell]

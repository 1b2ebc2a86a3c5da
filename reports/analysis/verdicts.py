"""Planned comparisons of one arm with another over the seeds they share, and their verdicts.

Holm's correction covers all comparisons *planned* for a student; one without paired runs so far enters with p = 1, so
that a verdict is never easier to reach in an unfinished study. A margin adds a test to the same family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reports.analysis import power, statistics
from reports.analysis.search import describe_recipe
from reports.analysis.sign_tests import LEVEL, Test, compute_margin_p
from reports.analysis.statistics import Paired
from reports.frames import parse_json_object
from reports.load import Cell, StudyRecords

Verdict = Literal["better", "worse", "not worse", "undecided"]
"""Not worse: the arm is shown to be worse by less than the margin that its study declares, or better."""


@dataclass(frozen=True)
class Contrast:
    """A planned comparison of one arm with another."""

    arm: str
    versus: str
    baseline: bool
    """Whether `arm` is a baseline."""
    paired: Paired | None
    """None if no seed has a run of both arms, or if they may not be compared."""
    differences: tuple[float, ...]
    """Differences of paired runs, one per seed that both arms have."""
    margin: float | None = None
    """How much worse than `versus` still counts as not worse, in the recorded unit; None if that is not asked."""
    tuning_alone: bool = False
    """Whether `arm` was searched while none of the arms it is compared with was, or its recipe was."""
    p: float | None = None
    """Holm-corrected."""
    margin_p: float | None = None
    """One-sided p of being worse by the margin or more, Holm-corrected."""
    verdict: Verdict | None = None
    seeds_needed: int | None = None
    """Seeds with which an undecided comparison would detect the observed difference with 80 % power."""
    not_judged: str = ""
    """The reason why the difference is not judged although both arms have runs."""
    test: Test = "sign-flip"
    recipes_differ: bool = False
    """Whether the two arms train by different recipes."""
    students_differ: bool = False
    """Whether the two arms chose different settings of one student, such as its width."""

    @property
    def relies_on_symmetry(self) -> bool:
        """True if the verdict rests on a test of symmetric differences, which these are not."""
        decided = self.verdict not in (None, "undecided")
        return decided and self.test == "sign-flip" and statistics.is_skewed(self.differences)

    @property
    def within_margin(self) -> bool:
        """True if the arm is shown not to be worse by the margin or more."""
        return self.margin_p is not None and self.margin_p <= LEVEL


def format_verdict(contrast: Contrast) -> str | None:
    """Return the verdict in words; None if nothing is measured."""
    if contrast.not_judged:
        return f"not judged: {contrast.not_judged}"
    return "worse, within the margin" if contrast.verdict == "worse" and contrast.within_margin else contrast.verdict


def compare_cells(
    records: StudyRecords, cell: Cell, bases: Sequence[Cell], tested: dict[str, dict[int, float]]
) -> tuple[Contrast, ...]:
    """Compare a cell with others of its student, given the test metric by cell and seed; `judge` adds the verdicts."""
    alone = cell.searched and not any(base.searched for base in bases)
    alone |= cell.searches_recipe and not any(base.searches_recipe for base in bases)
    margin = cell.margin / records.get_metric(records.test_metric).factor if cell.margin is not None else None
    student = _find_student(records, cell)
    return tuple(
        replace(
            compare_pair(records, cell, base, records.test_metric, tested),
            tuning_alone=alone,
            margin=margin,
            students_differ=None not in (student, other := _find_student(records, base)) and student != other,
        )
        for base in bases
    )


def select_student(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the searched settings that are the student's."""
    return {name: value for name, value in params.items() if name.startswith("student.")}


def _find_student(records: StudyRecords, cell: Cell) -> dict[str, Any] | None:
    """Return the settings of the student that a cell's runs on test are of; None without such runs."""
    runs = records.get_confirm_runs(cell)
    return select_student(parse_json_object(runs["params"].iloc[-1])) if len(runs) else None


def compare_pair(
    records: StudyRecords,
    cell: Cell,
    base: Cell,
    metric: str,
    tested: dict[str, dict[int, float]],
    points: tuple[int, int] = (0, 0),
) -> Contrast:
    """Compare two cells over the seeds they share, given a metric by cell and seed, of these points of their fronts."""
    values, others = tested.get(cell.name, {}), tested.get(base.name, {})
    mixed = records.explain_mixed_code(cell, base, points=points) if values and others else ""
    shared = [] if mixed else sorted(values.keys() & others.keys())
    pairs = [values[seed] for seed in shared], [others[seed] for seed in shared]
    test: Test = "sign" if records.study.get("test") == "sign" else "sign-flip"
    direction, resolution = records.get_direction(metric), records.get_metric(metric).resolution
    return Contrast(
        arm=cell.arm,
        versus=base.arm,
        baseline=cell.baseline,
        paired=statistics.compare_paired(*pairs, direction, test, resolution) if shared else None,
        differences=tuple(statistics.subtract_paired(*pairs, resolution).tolist()) if shared else (),
        not_judged=mixed,
        test=test,
        recipes_differ=describe_recipe(records, cell.arm) != describe_recipe(records, base.arm),
    )


def count_tests(contrasts: Sequence[Contrast]) -> int:
    """Return the number of tests in Holm's family: one per comparison, and one per margin."""
    return len(contrasts) + sum(contrast.margin is not None for contrast in contrasts)


def judge(contrasts: Sequence[Contrast], to_come: int = 0) -> list[Contrast]:
    """Return all comparisons of one student with corrected p values and verdicts; `to_come` more are planned."""
    margins = [contrast for contrast in contrasts if contrast.margin is not None]
    adjusted = adjust_by_holm(
        [contrast.paired.p if contrast.paired else 1.0 for contrast in contrasts]
        + [
            compute_margin_p(one.differences, one.margin or 0.0, one.paired.direction, one.test) if one.paired else 1.0
            for one in margins
        ]
        + [1.0] * to_come
    )
    margin_p = iter(adjusted[len(contrasts) :])
    return [
        _judge(contrast, p, next(margin_p) if contrast.margin is not None else None, len(adjusted))
        for contrast, p in zip(contrasts, adjusted, strict=False)
    ]


def _judge(contrast: Contrast, p: float, margin_p: float | None, tests: int) -> Contrast:
    paired = contrast.paired
    if paired is None:
        return contrast
    verdict = decide_verdict(paired, p, margin_p)
    # a single pair has no spread, without which no number of seeds can be estimated
    estimable = verdict == "undecided" and paired.n > 1
    needed = power.seeds_needed(paired.difference, paired.sd, tests) if estimable else None
    return replace(contrast, p=p, margin_p=margin_p, verdict=verdict, seeds_needed=needed)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values in the given order: max over i ≤ k of (m − i + 1) · p₍ᵢ₎, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    m, running = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def decide_verdict(
    comparison: Paired, adjusted_p: float, adjusted_margin_p: float | None = None, level: float = LEVEL
) -> Verdict:
    """Return better or worse if the corrected p is at most `level`; else not worse if that of the margin is."""
    if adjusted_p <= level:
        return "better" if comparison.improves else "worse"
    return "not worse" if adjusted_margin_p is not None and adjusted_margin_p <= level else "undecided"

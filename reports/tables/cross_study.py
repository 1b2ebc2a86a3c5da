"""The table of a comparison of studies, per student, and its summary in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from reports.analysis.cross_study import CellResult, StudentComparison
from reports.analysis.power import MAX_SEEDS
from reports.analysis.sign_tests import LEVEL
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import join_words, shorten
from reports.text.few_seeds import warn_of_few_seeds
from reports.text.results import format_difference, format_mean, format_p

MAX_LABEL = 40
"""Most characters of a study's name in headings and cells; the table of studies has the full name."""


def make_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return a short name per study, numbered if two would be equal."""
    short = [shorten(name, MAX_LABEL) for name in names]
    if len(set(short)) == len(short):
        return tuple(short)
    return tuple(f"{number}: {name}" for number, name in enumerate(short, 1))


def make_cells_table(student: StudentComparison, labels: Sequence[str]) -> Table:
    """Return each arm in each study that has it, with its difference to the first of them."""
    metric = student.rows[0].metric
    difference = metric.title_difference()
    return Table(
        name=f"compare-{student.name}",
        caption=f"{student.name}: {metric.label}",
        columns=("arm", "study", "n", metric.label, "compared by", difference, "p", "verdict", "seeds needed"),
        align="llrrlrrlr",
        rows=tuple(_make_row(row, metric, labels) for row in student.rows),
        kinds=tuple("first" if row.versus is None else "" for row in student.rows),
        notes=tuple(_make_notes(student, labels)),
    )


def summarize_student(student: StudentComparison, labels: Sequence[str]) -> str:
    """Return in one sentence the verdicts of each study against the one it is compared with."""
    parts = []
    for study, versus in dict.fromkeys((row.study, row.versus) for row in student.rows if row.versus is not None):
        rows = [row for row in student.rows if (row.study, row.versus) == (study, versus)]
        parts.append(f"{labels[study]} against {labels[versus or 0]}: {_group_by_verdict(rows)}")
    return f"{student.name}. {'; '.join(parts)}."


def _group_by_verdict(rows: Sequence[CellResult]) -> str:
    """Return the arms grouped by verdict: "better under “KD” and “DKD”, undecided under “no distillation”"."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_describe_verdict(row), []).append(f"“{row.arm}”")
    if len(groups) == 1 and len(rows) > 1:
        return f"{next(iter(groups))} under all {len(rows)} arms"
    return ", ".join(f"{standing} under {join_words(arms)}" for standing, arms in groups.items())


def _describe_verdict(row: CellResult) -> str:
    if row.incomparable:
        return "not comparable"
    if row.not_judged:
        return f"not judged ({row.not_judged})"
    if row.difference is None:
        return "no result"
    return row.verdict or "the same trials"


def _make_row(row: CellResult, shared: Metric, labels: Sequence[str]) -> tuple[str, ...]:
    metric, found = row.metric, row.difference
    own = f" ({metric.label})" if row.mean and metric.name != shared.name else ""
    mean = format_mean(metric, row.mean) + own
    difference = format_difference(metric, found.difference, found.interval) if found else "–"
    n = str(row.mean.n) if row.mean else "–" if row.difference else "0"
    unjudged = f"not judged: {row.not_judged}" if row.not_judged else "–"
    verdict = "not comparable" if row.incomparable else row.verdict or unjudged
    arm, test = row.arm if row.versus is None else "", (_describe_pairing(row), difference, format_p(row.p), verdict)
    return (arm, labels[row.study], n, mean, *test, _format_seeds_needed(row))


def _describe_pairing(row: CellResult) -> str:
    if row.versus is None or row.incomparable or row.not_judged:
        return "–"
    if row.difference is None:
        return "no result"
    n = row.difference.n
    words = {"paired": f"{n} shared seed{'s' * (n != 1)}", "unpaired": "unpaired", "repeated": "the same trials"}
    return words[row.kind]


def _format_seeds_needed(row: CellResult) -> str:
    if row.verdict != "undecided" or not row.difference or row.kind != "paired" or row.difference.n < 2:
        return "–"
    return str(row.seeds_needed) if row.seeds_needed else f"> {MAX_SEEDS}"


def _make_notes(student: StudentComparison, labels: Sequence[str]) -> Iterable[str]:
    kinds, m = {row.kind for row in student.rows if row.difference}, student.comparisons
    if m:
        yield (
            "Each study is compared with the first one of its arm. ± and [ ] are 95 % intervals. p is Holm-corrected "
            f"over this table's {m} comparison{'s' * (m != 1)}; better and worse mean p ≤ 0.05. The correction "
            "covers this page, not other studies that were tried."
        )
    if "paired" in kinds:
        yield (
            "Shared seeds: both runs of a pair have the same seed; two-sided sign-flip test, exact up to 20 "
            "seeds, BCa bootstrap interval. Seeds needed: for 80 % power if the true difference is the one seen."
        )
    if "unpaired" in kinds:
        yield (
            "Unpaired: the studies share no seed; two-sided permutation test of the difference of means, exact up to a "
            "million ways to divide the runs, Welch's t interval. Shared seeds would detect smaller differences: give "
            "the other studies the --seed of the first."
        )
    if "repeated" in kinds:
        yield (
            "The same trials: configuration, data, teacher and seed are equal, so a difference comes from the machine "
            "or from versions and is not judged."
        )
    if any(row.not_judged for row in student.rows):
        yield (
            "Not judged: in one of the two studies, code changed between the runs of this arm; their mean belongs to "
            "no version."
        )
    for versus, study, reasons in dict.fromkeys(
        (r.versus, r.study, r.incomparable) for r in student.rows if r.incomparable
    ):
        yield f"{labels[study]} is not comparable with {labels[versus or 0]}: {reasons}."
    yield from _warn_of_few_runs(student)


def _warn_of_few_runs(student: StudentComparison) -> Iterable[str]:
    """Yield a warning if there are too few runs for any verdict but undecided."""
    runs = {(row.arm, row.study): len(row.values) for row in student.rows}
    pairs, smallest = 0, 1.0
    for row in student.rows:
        if row.difference and row.kind == "paired":
            pairs = max(pairs, row.difference.n)
        elif row.difference and row.kind == "unpaired" and row.versus is not None:
            mine, other = runs[row.arm, row.study], runs[row.arm, row.versus]
            smallest = min(smallest, 2 / math.comb(mine + other, mine))
    corrected = min(1.0, smallest * student.comparisons)
    if corrected <= LEVEL:
        return
    if smallest < 1:
        yield f"Unpaired, this few runs give no p below {smallest:.2g}, {corrected:.2g} after correction: undecided."
    if warning := warn_of_few_seeds(pairs, student.comparisons):
        yield warning

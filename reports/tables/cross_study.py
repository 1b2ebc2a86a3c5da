"""Studies side by side for people: a table and a strip of dots per student, and the answer in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.analysis.cross_study import CellResult, StudentComparison
from reports.analysis.statistics import LEVEL
from reports.figures.style import PALETTE
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import join_words, shorten
from reports.text.summary import warn_of_few_seeds

LABEL = 40
"""Characters of a study's name in headings and cells; the table of studies has it in full."""

TICKS = 5
"""About so many marks on an axis."""


@dataclass(frozen=True)
class DotPlotRow:
    """A cell of one study, drawn: places on the axis in percent of its width."""

    arm: str
    study: str
    colour: str
    first: bool
    """Of its arm."""
    dots: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    """Left end and width."""
    text: str


@dataclass(frozen=True)
class DotPlot:
    """One student's runs on a common axis."""

    title: str
    lines: tuple[DotPlotRow, ...]
    ticks: tuple[tuple[float, str], ...]
    axis: str


def make_labels(names: Sequence[str]) -> tuple[str, ...]:
    """A short name for each study; numbered where names would look the same."""
    short = [shorten(name, LABEL) for name in names]
    if len(set(short)) == len(short):
        return tuple(short)
    return tuple(f"{number}: {name}" for number, name in enumerate(short, 1))


def make_cells_table(student: StudentComparison, labels: Sequence[str]) -> Table:
    """Each arm in each study that has it, with its difference to the first of them."""
    written = student.rows[0].metric
    difference = f"difference, {written.difference_unit}" if written.difference_unit else "difference"
    return Table(
        name=f"compare-{student.name}",
        caption=f"{student.name}: {written.label}",
        columns=(
            "arm",
            "study",
            "n",
            written.label,
            "compared by",
            difference,
            "p",
            "verdict",
            "seeds needed",
        ),
        align="llrrlrrlr",
        rows=tuple(_cells(row, written, labels) for row in student.rows),
        kinds=tuple("first" if row.versus is None else "" for row in student.rows),
        notes=tuple(_notes(student, labels)),
    )


def summarize_student(student: StudentComparison, labels: Sequence[str]) -> str:
    """One sentence on one student: what each study shows against the one it is compared with."""
    parts = []
    for study, versus in dict.fromkeys((row.study, row.versus) for row in student.rows if row.versus is not None):
        rows = [row for row in student.rows if (row.study, row.versus) == (study, versus)]
        parts.append(f"{labels[study]} against {labels[versus or 0]}: {_counted(rows)}")
    return f"{student.name}. {'; '.join(parts)}."


def make_dot_plot(student: StudentComparison, labels: Sequence[str]) -> DotPlot | None:
    """All runs that may stand on one axis; None where that is no comparison."""
    rows = [row for row in student.rows if row.mean and not row.why_not]
    if not any(row.versus is not None for row in rows):
        return None
    written, spans = rows[0].metric, [_span(row) for row in rows]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    room = 0.04 * (high - low) or 0.01 * abs(high) or 1.0
    low, width = low - room, high - low + 2 * room
    lines = tuple(_line(row, labels, low, width) for row in rows)
    marks = _ticks(low * written.factor, (low + width) * written.factor)
    ticks = tuple((100 * (at / written.factor - low) / width, text) for at, text in marks)
    return DotPlot(f"{student.name}: every run", lines, ticks, written.label)


def _counted(rows: Sequence[CellResult]) -> str:
    """ "better under “KD” and “DKD”, undecided under “no distillation”"."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_standing(row), []).append(f"“{row.arm}”")
    if len(groups) == 1 and len(rows) > 1:
        return f"{next(iter(groups))} under all {len(rows)} arms"
    return ", ".join(f"{standing} under {join_words(arms)}" for standing, arms in groups.items())


def _standing(row: CellResult) -> str:
    if row.why_not:
        return "not comparable"
    if row.not_judged:
        return f"not judged ({row.not_judged})"
    if row.difference is None:
        return "no result"
    return row.verdict or "the same trials"


def _cells(row: CellResult, shared: Metric, labels: Sequence[str]) -> tuple[str, ...]:
    written, found = row.metric, row.difference
    own = f" ({written.label})" if written.name != shared.name else ""
    half = f" ± {written.format(row.mean.interval.high - row.mean.mean)}" if row.mean and row.mean.interval else ""
    mean = f"{written.format(row.mean.mean)}{half}{own}" if row.mean else "–"
    difference, p = "–", "–"
    if found:
        spread = found.interval
        bounds = f" [{written.format_signed(spread.low)}, {written.format_signed(spread.high)}]" if spread else ""
        difference = written.format_signed(found.difference) + bounds
    if row.p is not None:
        p = "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"
    n = str(row.mean.n if row.mean else 0)
    unjudged = f"not judged: {row.not_judged}" if row.not_judged else "–"
    verdict = "not comparable" if row.why_not else row.verdict or unjudged
    arm = row.arm if row.versus is None else ""
    return (arm, labels[row.study], n, mean, _how(row), difference, p, verdict, _needed(row))


def _how(row: CellResult) -> str:
    if row.versus is None or row.why_not or row.not_judged:
        return "–"
    if row.difference is None:
        return "no result"
    kind, n = row.difference.kind, row.difference.n
    words = {"paired": f"{n} shared seed{'s' * (n != 1)}", "unpaired": "unpaired", "repeated": "the same trials"}
    return words[kind]


def _needed(row: CellResult) -> str:
    if row.verdict != "undecided" or not row.difference or row.difference.kind != "paired" or row.difference.n < 2:
        return "–"
    return str(row.seeds_needed) if row.seeds_needed else "> 1000"


def _notes(student: StudentComparison, labels: Sequence[str]) -> Iterable[str]:
    found = [row.difference for row in student.rows if row.difference]
    kinds, m = {difference.kind for difference in found}, student.comparisons
    if m:
        yield (
            "Each study is compared with the first one of its arm. ± and [ ] are 95 % intervals. p is Holm-corrected "
            f"over this table's {m} comparison{'s' * (m != 1)}; better and worse mean p ≤ 0.05. The correction knows "
            "of this page alone, not of other studies that were tried."
        )
    if "paired" in kinds:
        yield (
            "Shared seeds: both runs of a pair have the same seed; two-sided sign-flip test, exact up to 20 "
            "seeds, BCa bootstrap interval. Seeds needed: for 80 % power if the true difference is the one seen."
        )
    if "unpaired" in kinds:
        yield (
            "Unpaired: the studies share no seed; two-sided permutation test of the difference of means, exact up to a "
            "million ways to deal the runs out, Welch's t interval. It takes a larger difference to be found than with "
            "shared seeds: --seed of the first study gives the others its seeds."
        )
    if "repeated" in kinds:
        yield (
            "The same trials: configuration, data, teacher and seed are equal, so a difference comes from the machine "
            "or from versions, and there is nothing to judge."
        )
    if any(row.not_judged for row in student.rows):
        yield (
            "Not judged: in one of the two studies, code changed between the runs of this arm; their mean belongs to "
            "no version."
        )
    for versus, study, reasons in dict.fromkeys((r.versus, r.study, r.why_not) for r in student.rows if r.why_not):
        yield f"{labels[study]} is not comparable with {labels[versus or 0]}: {reasons}."
    yield from _too_few(student)


def _too_few(student: StudentComparison) -> Iterable[str]:
    """Says that so few runs can decide nothing, where that is so."""
    runs = {(row.arm, row.study): len(row.values) for row in student.rows}
    pairs, smallest = 0, 1.0
    for row in student.rows:
        if row.difference and row.difference.kind == "paired":
            pairs = max(pairs, row.difference.n)
        elif row.difference and row.difference.kind == "unpaired" and row.versus is not None:
            mine, other = runs[row.arm, row.study], runs[row.arm, row.versus]
            smallest = min(smallest, 2 / math.comb(mine + other, mine))
    corrected = min(1.0, smallest * student.comparisons)
    if corrected <= LEVEL:
        return
    if smallest < 1:
        yield f"Unpaired, so few runs give no p below {smallest:.2g}, {corrected:.2g} after correction: undecided."
    if warning := warn_of_few_seeds(pairs, student.comparisons):
        yield warning


def _span(row: CellResult) -> tuple[float, float]:
    assert row.mean is not None
    interval = [row.mean.interval.low, row.mean.interval.high] if row.mean.interval else []
    return min([*row.values.values(), *interval]), max([*row.values.values(), *interval])


def _line(row: CellResult, labels: Sequence[str], low: float, width: float) -> DotPlotRow:
    assert row.mean is not None
    interval = row.mean.interval
    return DotPlotRow(
        arm=row.arm,
        study=labels[row.study],
        colour=PALETTE[row.study % len(PALETTE)],
        first=row.versus is None,
        dots=tuple(100 * (value - low) / width for value in row.values.values()),
        mean=100 * (row.mean.mean - low) / width,
        interval=(100 * (interval.low - low) / width, 100 * (interval.high - interval.low) / width)
        if interval
        else None,
        text=f"mean {row.metric.format(row.mean.mean)}, {row.mean.n} runs",
    )


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers from `low` to `high`, about `TICKS` of them."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    return [(k * step, f"{k * step:.{digits}f}".replace("-", "−")) for k in range(first, math.floor(high / step) + 1)]

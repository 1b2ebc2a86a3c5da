"""The report's tables: comparison, failures, provenance; budget.py and search_results.py have the others.

Each is a function from the records to a `Table`, already formatted for people. comparison.py does the arithmetic
of the first; comparison.csv holds its numbers unrounded.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from reports.analysis import statistics
from reports.analysis.comparison import ArmResult, Comparison, Reference, compare_arms, format_verdict
from reports.analysis.published import Published
from reports.analysis.statistics import Mean, Paired
from reports.format.metrics import Metric, format_value, shorten
from reports.format.table import Table, to_text
from reports.load import StudyRecords, load_study
from reports.text import summary as headline

FULL_WIDTH = 100
"""Columns of a terminal from which on the whole comparison table is printed."""


def format_comparisons(folder: Path, width: int = 110) -> str:
    """What the command line prints at the end of a run: data, each student's table, the answers, what is missing.

    Raises RecordsError if `folder` is no study.
    """
    records = load_study(folder)
    blocks = [_wrapped(headline.describe_data(records), width)]
    for comparison in compare_arms(records):
        table = make_comparison_table(comparison)
        lines = [headline.seeds_line(comparison), *table.notes, headline.summarize_comparison(comparison)]
        shown = table if width >= FULL_WIDTH else _narrowed(table)
        blocks.append(f"{shorten(table.caption, width)}\n\n{to_text(shown, width)}")
        blocks.append("\n".join(_wrapped(line, width) for line in lines if line))
    blocks.append("\n".join(_wrapped(line, width) for line in headline.list_problems(records)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def make_comparison_table(comparison: Comparison) -> Table:
    """One student's arms, the teacher first as a reference."""
    written, rows = comparison.metric, comparison.rows
    at_best = any(row.at_best_val for row in rows)
    shown = bool(comparison.teacher and comparison.teacher.published) or any(row.published for row in rows)
    unit = f", {written.difference_unit}" if written.difference_unit else ""
    columns = [("arm", "l"), ("n", "r"), (written.label, "r")]
    columns += [("at best validation epoch", "r")] if at_best else []
    columns += [("compared with", "l"), (f"difference{unit}", "r"), ("p", "r"), ("verdict", "l"), ("seeds needed", "r")]
    columns += [("published", "r")] if shown else []
    body = [_teacher_cells(comparison, comparison.teacher, at_best, shown)] if comparison.teacher else []
    body += [_arm_cells(comparison, row, at_best, shown) for row in rows]
    kinds = ["reference"] * bool(comparison.teacher) + ["baseline" if row.baseline else "" for row in rows]
    parameters = f" ({comparison.parameters:,} parameters)" if comparison.parameters else ""
    return Table(
        name=f"comparison-{comparison.student}",
        caption=f"{comparison.student}{parameters}: {written.label}",
        columns=tuple(title for title, _ in columns),
        align="".join(align for _, align in columns),
        rows=tuple(body),
        kinds=tuple(kinds),
        notes=tuple(_comparison_notes(comparison)),
    )


def make_failures_table(records: StudyRecords) -> Table:
    """Every failed trial with its reason."""
    failed = records.trials[records.trials["state"] == "FAILED"]
    rows = [
        (row.trial_id, row.cell, row.phase, str(row.number), str(row.seed), str(row.epochs_done), row.reason or "–")
        for row in failed.itertuples()
    ]
    return Table(
        name="failures",
        caption="Failed trials",
        columns=("id", "cell", "phase", "number", "seed", "epochs done", "reason"),
        align="lllrrrl",
        rows=tuple(tuple(str(cell) for cell in row) for row in rows),
    )


def make_provenance_table(records: StudyRecords) -> Table:
    """Where the numbers come from."""
    provenance, inputs = records.section("provenance"), records.section("inputs")
    commit = provenance.get("commit")
    space = records.section("space")
    facts: dict[str, Any] = {
        "command": provenance.get("command"),
        "commit": f"{commit}, with uncommitted changes" if commit and provenance.get("dirty") else commit,
        "started": provenance.get("created"),
        "last written": provenance.get("updated"),
        "space file": space.get("path"),
        "profile": space.get("profile"),
        "study seed": records.study.get("seed"),
        "confirm seeds": ", ".join(str(seed) for seed in sorted(set(records.confirmed["seed"]))),
        "record schema": records.study.get("schema"),
    }
    sections = (
        ("teacher", records.section("teacher")),
        ("machine", records.section("provenance", "machine")),
        *inputs.items(),
    )
    for name, section in (*sections, ("version of", records.section("provenance", "versions"))):
        facts |= dict(_flattened(section, name))
    rows = tuple((name, _fact(value)) for name, value in facts.items() if value not in (None, "", [], {}))
    return Table("provenance", "Provenance", ("what", "value"), "ll", rows)


def _narrowed(table: Table) -> Table:
    """A comparison for a narrow terminal: without intervals of differences and seeds needed, which the answer names."""
    keep = [index for index, title in enumerate(table.columns) if title != "seeds needed"]
    difference = next(index for index, title in enumerate(table.columns) if title.startswith("difference"))
    return replace(
        table,
        columns=tuple(table.columns[i] for i in keep),
        align="".join(table.align[i] for i in keep),
        rows=tuple(tuple(row[i].split(" [")[0] if i == difference else row[i] for i in keep) for row in table.rows),
    )


def _teacher_cells(comparison: Comparison, teacher: Reference, at_best: bool, shown: bool) -> tuple[str, ...]:
    extra = (_published(comparison, teacher.published),) if shown else ()
    measured = comparison.metric.format(teacher.value)
    return (f"teacher: {teacher.name}", "1", measured, *["–"] * at_best, "–", "–", "–", "–", "–", *extra)


def _at_best(comparison: Comparison, row: ArmResult) -> str:
    """Of how many runs is told where it is not of all."""
    best, last = row.at_best_val, row.mean
    partly = f" (n = {best.n})" if best and (last is None or best.n != last.n) else ""
    return format_mean(comparison.metric, best) + partly


def _arm_cells(comparison: Comparison, row: ArmResult, at_best: bool, shown: bool) -> tuple[str, ...]:
    cells = [row.arm, str(row.mean.n if row.mean else 0), format_mean(comparison.metric, row.mean)]
    cells += [_at_best(comparison, row)] if at_best else []
    difference = format_difference(comparison.metric, row.paired)
    cells += [row.versus or "–", difference, _p(row.p), format_verdict(row) or "–", _needed(row)]
    cells += [_published(comparison, row.published)] if shown else []
    return tuple(cells)


def format_mean(written: Metric, mean: Mean | None) -> str:
    """ "93.77 ± 0.78": a mean and the half width of its interval."""
    if mean is None:
        return "–"
    half = f" ± {written.format(mean.interval.high - mean.mean)}" if mean.interval else ""
    return written.format(mean.mean) + half


def format_difference(written: Metric, paired: Paired | None) -> str:
    """ "+0.04 [−0.38, +0.40]": a mean difference and its interval."""
    if paired is None:
        return "–"
    signed, interval = written.format_signed, paired.interval
    return signed(paired.difference) + (f" [{signed(interval.low)}, {signed(interval.high)}]" if interval else "")


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _needed(row: ArmResult) -> str:
    if row.verdict != "undecided" or row.paired is None or row.paired.n < 2 or row.paired.alike:
        return "–"
    return str(row.seeds_needed) if row.seeds_needed else "> 1000"


def _published(comparison: Comparison, figure: Any) -> str:
    if figure is None:
        return "–"
    return comparison.metric.format_signed(figure.value) if figure.versus else comparison.metric.format(figure.value)


def _comparison_notes(comparison: Comparison) -> list[str]:
    m = comparison.comparisons
    teacher = comparison.teacher
    of_teacher = [_of_paper("teacher", teacher.published)] if teacher and teacher.published else []
    beneath = [*headline.list_code_notes(comparison), *of_teacher]
    if not m:
        return ["± is a 95 % t interval.", *beneath]
    notes = [
        "± is a 95 % t interval. [ ] is a 95 % BCa bootstrap interval of the paired differences; at few seeds it is "
        "too narrow (it covers 84 % at 5, 88 % at 8, 92 % at 20), and no verdict rests on it. p is the two-sided "
        f"sign-flip test, exact up to {statistics.MAX_EXACT_PAIRS} seeds, Holm-corrected over this table's {m} "
        f"comparison{'s' * (m != 1)}; better and worse mean p ≤ 0.05. Seeds needed: for 80 % power if the "
        "true difference is the one seen."
    ]
    return [
        *notes,
        *beneath,
        *(_of_paper(row.arm, row.published) for row in comparison.rows if row.published),
    ]


def _of_paper(what: str, figure: Published) -> str:
    kind = f"difference to {figure.versus}" if figure.versus else "value"
    extras = "; ".join(part for part in (figure.setting, figure.epoch, figure.note) if part)
    return f"{what}: {kind} published in {figure.paper} ({extras})."


def _flattened(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flattened(item, f"{name} {key}")]
    return [(name, value)]


def _fact(value: Any) -> str:
    return ", ".join(_fact(item) for item in value) if isinstance(value, list) else format_value(value)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width)

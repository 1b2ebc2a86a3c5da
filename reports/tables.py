"""The report's tables: comparison, budget, failures, provenance; search_results.py has the searched cells'.

Each is a function from the records to a `Table`, already formatted for people. comparison.py does the arithmetic
of the first; comparison.csv holds its numbers unrounded.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports import headline
from reports.comparison import ArmResult, Comparison, Reference, compare
from reports.load import StudyRecords, load
from reports.metrics import brief, duration, shorten
from reports.render import Table, to_text
from reports.statistics import Mean, Paired

FULL_WIDTH = 100
"""Columns of a terminal from which on the whole comparison table is printed."""


def comparison_text(folder: Path, width: int = 110) -> str:
    """What the command line prints at the end of a run: data, each student's table, the answers, what is missing.

    Raises RecordsError if `folder` is no study.
    """
    records = load(folder)
    blocks = [_wrapped(headline.data_line(records), width)]
    for comparison in compare(records):
        table = comparison_table(comparison)
        lines = [headline.seeds_line(comparison), *table.notes, headline.answer(comparison)]
        shown = table if width >= FULL_WIDTH else _narrowed(table)
        blocks.append(f"{shorten(table.caption, width)}\n\n{to_text(shown, width)}")
        blocks.append("\n".join(_wrapped(line, width) for line in lines if line))
    blocks.append("\n".join(_wrapped(line, width) for line in headline.missing(records)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def comparison_table(comparison: Comparison) -> Table:
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


def budget_table(records: StudyRecords) -> Table:
    """What each cell was given and took: a fair comparison shows here."""
    rows: list[tuple[str, ...]] = []
    prepare = records.trials[records.trials["phase"] == "prepare"]
    # steps of one kind together: a large teacher's outputs are stored in dozens of them
    for kind, group in prepare.groupby(prepare["arm"].str.split(" ").str[0], sort=False):
        rows.append((f"prepare: {kind}", "–", "–", "–", "–", str(len(group)), *_spent(group)))
    for cell in records.cells:
        trials = records.trials[(records.trials["cell"] == cell.name) & (records.trials["phase"] != "prepare")]
        search, confirm = trials[trials["phase"] == "search"], trials[trials["phase"] == "confirm"]
        states = [str((search["state"] == state).sum()) for state in ("COMPLETE", "PRUNED", "FAILED")]
        rows.append((cell.name, str(len(search)), *states, str(len(confirm)), *_spent(trials)))
    return Table(
        name="budget",
        caption="Trials, epochs and time per cell",
        columns=(
            "cell",
            "search trials",
            "complete",
            "stopped",
            "failed",
            "runs in full",
            "epochs",
            "time",
            "GPU hours",
        ),
        align="lrrrrrrrr",
        rows=tuple(rows),
    )


def failures_table(records: StudyRecords) -> Table:
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


def provenance_table(records: StudyRecords) -> Table:
    """Where the numbers come from."""
    provenance, inputs = records.part("provenance"), records.part("inputs")
    commit = provenance.get("commit")
    space = records.part("space")
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
        ("teacher", records.part("teacher")),
        ("machine", records.part("provenance", "machine")),
        *inputs.items(),
    )
    for name, section in (*sections, ("version of", records.part("provenance", "versions"))):
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
    measured = comparison.metric.text(teacher.value)
    return (f"teacher: {teacher.name}", "1", measured, *["–"] * at_best, "–", "–", "–", "–", "–", *extra)


def _arm_cells(comparison: Comparison, row: ArmResult, at_best: bool, shown: bool) -> tuple[str, ...]:
    cells = [row.arm, str(row.mean.n if row.mean else 0), _mean(comparison, row.mean)]
    cells += [_mean(comparison, row.at_best_val)] if at_best else []
    cells += [row.versus or "–", _difference(comparison, row.paired), _p(row.p), row.verdict or "–", _needed(row)]
    cells += [_published(comparison, row.published)] if shown else []
    return tuple(cells)


def _mean(comparison: Comparison, mean: Mean | None) -> str:
    if mean is None:
        return "–"
    half = f" ± {comparison.metric.text(mean.interval.high - mean.mean)}" if mean.interval else ""
    return comparison.metric.text(mean.mean) + half


def _difference(comparison: Comparison, paired: Paired | None) -> str:
    if paired is None:
        return "–"
    signed, interval = comparison.metric.signed, paired.interval
    return signed(paired.difference) + (f" [{signed(interval.low)}, {signed(interval.high)}]" if interval else "")


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _needed(row: ArmResult) -> str:
    if row.verdict != "undecided" or row.paired is None or row.paired.n < 2:
        return "–"
    return str(row.seeds_needed) if row.seeds_needed else "> 1000"


def _published(comparison: Comparison, figure: Any) -> str:
    if figure is None:
        return "–"
    return comparison.metric.signed(figure.value) if figure.versus else comparison.metric.text(figure.value)


def _comparison_notes(comparison: Comparison) -> list[str]:
    m = comparison.comparisons
    notes = [
        "± and [ ] are 95 % intervals (t; BCa bootstrap of the paired differences). p is the exact two-sided "
        f"sign-flip test, Holm-corrected over this table's {m} comparison{'s' * (m != 1)}; better and worse mean "
        "p ≤ 0.05. Seeds needed: for 80 % power if the true difference is the one seen."
    ]
    for row in comparison.rows:
        if figure := row.published:
            kind = f"difference to {figure.versus}" if figure.versus else "value"
            extras = "; ".join(part for part in (figure.setting, figure.note) if part)
            notes.append(f"{row.arm}: {kind} published in {figure.paper}" + (f" ({extras})." if extras else "."))
    return notes


def _spent(trials: pd.DataFrame) -> tuple[str, str, str]:
    gpu_hours = (trials["seconds"].fillna(0) * trials["gpus"].fillna(0)).sum() / 3600
    epochs, seconds = trials["epochs_done"].fillna(0).sum(), trials["seconds"].fillna(0).sum()
    return f"{epochs:,.0f}", duration(seconds), f"{gpu_hours:.2f}" if gpu_hours else "–"


def _flattened(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flattened(item, f"{name} {key}")]
    return [(name, value)]


def _fact(value: Any) -> str:
    return ", ".join(_fact(item) for item in value) if isinstance(value, list) else brief(value)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width)

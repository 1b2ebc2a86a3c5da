"""The comparison as the command line prints it at the end of a run."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

from reports.analysis.comparison import compare_arms
from reports.format.table import Table, to_text
from reports.format.values import shorten
from reports.load import load_study
from reports.tables.across_students import make_tables
from reports.tables.comparison import make_comparison_table
from reports.text import summary
from reports.text.few_seeds import warn_of_few_seeds
from reports.text.sanity import list_warnings

FULL_WIDTH = 100
"""Width of a terminal, in columns, from which on the comparison table fits without leaving columns out."""


def format_comparisons(folder: Path, width: int = 110) -> str:
    """Return the data, each student's table and summary, and the problems of the study in `folder`.

    Raises RecordsError if `folder` is no study.
    """
    records = load_study(folder)
    blocks = [_wrap(summary.describe_data(records), width)]
    blocks += [_wrap(f"warning: {line}", width) for line in list_warnings(records)]
    for comparison in compare_arms(records):
        table = make_comparison_table(comparison)
        seeds = warn_of_few_seeds(comparison.seeds, comparison.tests)
        lines = [seeds, *table.notes, summary.summarize_comparison(comparison)]
        printed = table if width >= FULL_WIDTH else _narrow(table)
        blocks.append(f"{shorten(table.caption, width)}\n\n{to_text(printed, width)}")
        blocks.append("\n".join(_wrap(line, width) for line in lines if line))
    for table in make_tables(records):
        blocks.append(f"{shorten(table.caption, width)}\n\n{to_text(table, width)}\n" + _wrap(table.notes[0], width))
    blocks.append("\n".join(_wrap(line, width) for line in summary.summarize_across_students(records)))
    blocks.append("\n".join(_wrap(line, width) for line in summary.list_problems(records)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def summarize(folder: Path) -> str:
    """Return the study's answer in a sentence for each student."""
    return " ".join(summary.summarize_comparisons(compare_arms(load_study(folder))))


def _narrow(table: Table) -> Table:
    """Return a comparison table without intervals of differences and seeds needed, which the summary gives."""
    kept = [index for index, title in enumerate(table.columns) if title != "seeds needed"]
    difference = next(index for index, title in enumerate(table.columns) if title.startswith("difference"))
    return replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        align="".join(table.align[i] for i in kept),
        rows=tuple(tuple(row[i].split(" [")[0] if i == difference else row[i] for i in kept) for row in table.rows),
    )


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width)

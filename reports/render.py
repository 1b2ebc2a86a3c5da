"""A table of formatted text, and its written forms: aligned columns, markdown, CSV. tables.py fills them."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from dataclasses import dataclass

from reports.metrics import shorten


@dataclass(frozen=True)
class Table:
    """Formatted cells. `align` has one letter a column, l or r; `kinds` one word a row for the page's style."""

    name: str
    caption: str
    columns: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def to_text(table: Table, width: int = 110) -> str:
    """Aligned monospace columns, at most `width` wide: text columns give way, headings wrap."""
    widths = [
        max([_longest_word(title), *(len(row[i]) for row in table.rows)]) for i, title in enumerate(table.columns)
    ]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max((i for i, letter in enumerate(table.align) if letter == "l"), key=lambda i: widths[i])
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    heads = [textwrap.wrap(title, size) or [""] for title, size in zip(table.columns, widths, strict=True)]
    tall = max(len(head) for head in heads)
    lines = [tuple(([""] * (tall - len(head)) + head)[i] for head in heads) for i in range(tall)]
    lines += [tuple("─" * size for size in widths), *table.rows]
    return "\n".join(_line(line, widths, table.align) for line in lines)


def to_markdown(table: Table) -> str:
    """A pipe table with its caption and notes."""
    rule = tuple({"l": ":--", "r": "--:"}[letter] for letter in table.align)
    lines = [f"**{_markdown(table.caption)}**", ""]
    lines += ["| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in (table.columns, rule, *table.rows)]
    lines += ["", *(f"{_markdown(note)}  " for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """The formatted cells, comma-separated."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue()


def _longest_word(text: str) -> int:
    return max((len(word) for word in text.split()), default=1)


def _line(cells: tuple[str, ...], widths: list[int], align: str) -> str:
    shaped = [
        shorten(cell, size).ljust(size) if letter == "l" else cell.rjust(size)
        for cell, size, letter in zip(cells, widths, align, strict=True)
    ]
    return "  ".join(shaped).rstrip()


def _markdown(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("\\", "\\\\").replace("|", "\\|")

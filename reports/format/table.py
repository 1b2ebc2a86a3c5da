"""A table of formatted text, and its written forms: aligned columns, Markdown, CSV, LaTeX. tables.py fills them.

A number with more to it has its parts separated by "; ", in a column aligned to the right; LaTeX and the page put each
on a line of its own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import textwrap
from dataclasses import dataclass

from reports.format.latex import escape_latex
from reports.format.values import shorten

GREY = r"\color[gray]{0.4}"
"""Before what is greyed; on white 5.7 : 1 in contrast."""


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


def to_tex(table: Table) -> str:
    """A LaTeX table in ASCII: it asks for no input encoding, and for no package but those its first line names."""
    cells = [[_tex_cell(*pair) for pair in zip(row, table.align, strict=True)] for row in table.rows]
    kinds = table.kinds or ("",) * len(cells)
    rows = [[GREY + c for c in row] if kind == "greyed" else row for row, kind in zip(cells, kinds, strict=True)]
    notes = [escape_latex(note) for note in table.notes]
    lines = [
        "% needs \\usepackage{booktabs}" + (" and \\usepackage{xcolor}" if "greyed" in kinds else ""),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.caption)}}}",
        f"\\label{{tab:{make_file_stem(table.name)}}}",
        f"\\begin{{tabular}}{{{table.align}}}",
        "\\toprule",
        _tex_row([escape_latex(title) for title in table.columns]),
        "\\midrule",
        *map(_tex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(["\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"] if notes else []),
        *(f"{note}\\par" for note in notes),
        *(["\\end{minipage}"] if notes else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def make_file_stem(name: str) -> str:
    """A table's name as a file name on any system; what that cuts off or leaves out is kept apart by a hash."""
    stem = re.sub(r"[^A-Za-z0-9._+=]+", "-", name).strip("-.")
    told = len(stem) <= 80 and re.fullmatch(r"[A-Za-z0-9.+=, /_-]*", name)
    return stem if told else f"{stem[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _tex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_cell(text: str, letter: str) -> str:
    parts = [escape_latex(part) for part in text.split("; ")] if letter == "r" else []
    stacked = r"\begin{tabular}[t]{@{}r@{}}" + r"\\".join(parts) + r"\end{tabular}"
    return stacked if len(parts) > 1 else escape_latex(text)


def _longest_word(text: str) -> int:
    return max((len(word) for word in text.split()), default=1)


def _line(cells: tuple[str, ...], widths: list[int], align: str) -> str:
    shaped = [
        shorten(cell, size).ljust(size) if letter == "l" else cell.rjust(size)
        for cell, size, letter in zip(cells, widths, align, strict=True)
    ]
    return "  ".join(shaped).rstrip()


def _markdown(text: str) -> str:
    # a < opens a tag and an & an entity, even in Markdown; a > alone does neither
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("\\", "\\\\").replace("|", "\\|")

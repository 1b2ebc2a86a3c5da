"""A table of formatted text, written as aligned columns, Markdown, CSV or LaTeX.

In columns aligned to the right, a cell may have several parts separated by "; ": LaTeX and the page give each part its
own line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports.format.latex import escape_latex
from reports.format.values import shorten

GREY = r"\color[gray]{0.4}"
"""LaTeX colour of greyed rows; its contrast on white is 5.7 : 1."""

NUMBER_WITH_INTERVAL = re.compile(r"(-?[0-9.]+( ± [0-9.]+)?)?")
"""A cell of a CSV file that is empty, a number, or a number with the half-width of its interval."""


@dataclass(frozen=True)
class Table:
    """Formatted cells. `align` has a letter per column, l or r; `kinds` a word per row, a style of the page."""

    name: str
    caption: str
    columns: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def to_text(table: Table, width: int = 110) -> str:
    """Return monospace columns of at most `width` characters: text columns are shortened, headings wrapped."""
    widths = [
        max(map(len, [" ", *title.split(), *(row[i] for row in table.rows)])) for i, title in enumerate(table.columns)
    ]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max((i for i, letter in enumerate(table.align) if letter == "l"), key=lambda i: widths[i])
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    heads = [textwrap.wrap(title, size) or [""] for title, size in zip(table.columns, widths, strict=True)]
    height = max(len(head) for head in heads)
    lines = [tuple(([""] * (height - len(head)) + head)[i] for head in heads) for i in range(height)]
    lines += [tuple("─" * size for size in widths), *table.rows]
    return "\n".join(_align(line, widths, table.align) for line in lines)


def to_markdown(table: Table) -> str:
    """Return a Markdown pipe table with its caption and notes."""
    rule = tuple({"l": ":--", "r": "--:"}[letter] for letter in table.align)
    lines = [f"**{_escape_markdown(table.caption)}**", ""]
    lines += [
        "| " + " | ".join(_escape_markdown(cell) for cell in row) + " |" for row in (table.columns, rule, *table.rows)
    ]
    lines += ["", *(f"{_escape_markdown(note)}  " for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Return the cells separated by commas, numbers as programs read them: -1234.5 for "−1,234.5", nothing for "–".

    A column of numbers, some "96.1 ± 0.5", is two in the file: "accuracy, %" and "accuracy, % ±".
    """
    out = io.StringIO()
    cells = [[_make_csv_cell(*pair) for pair in zip(row, table.align, strict=True)] for row in table.rows]
    columns = [[title, *column] for title, *column in zip(table.columns, *cells, strict=True)]
    parts = [part for column in columns for part in _split_intervals(column)]
    csv.writer(out, lineterminator="\n").writerows(zip(*parts, strict=True))
    return out.getvalue()


def to_tex(table: Table) -> str:
    """Return a LaTeX table in ASCII; its first line names the packages it needs."""
    cells = [[_make_tex_cell(*pair) for pair in zip(row, table.align, strict=True)] for row in table.rows]
    kinds = table.kinds or ("",) * len(cells)
    rows = [[GREY + c for c in row] if kind == "greyed" else row for row, kind in zip(cells, kinds, strict=True)]
    notes = [escape_latex(note) for note in table.notes]
    lines = [
        "% needs \\usepackage{adjustbox,booktabs}" + (" and \\usepackage{xcolor}" if "greyed" in kinds else ""),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.caption)}}}",
        f"\\label{{tab:{make_file_stem(table.name)}}}",
        "\\begin{adjustbox}{max width=\\linewidth}",
        f"\\begin{{tabular}}{{{table.align}}}",
        "\\toprule",
        _join_tex_row([escape_latex(title) for title in table.columns]),
        "\\midrule",
        *map(_join_tex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
        *(["\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"] if notes else []),
        *(f"{note}\\par" for note in notes),
        *(["\\end{minipage}"] if notes else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def make_file_stem(name: str) -> str:
    """Return a table's name as a file name for any system; a hash distinguishes names that had to be changed."""
    stem = re.sub(r"[^A-Za-z0-9._+=]+", "-", name).strip("-.")
    unchanged = len(stem) <= 80 and re.fullmatch(r"[A-Za-z0-9.+=, /_-]*", name)
    return stem if unchanged else f"{stem[:80]}-{_hash_name(name)}"


def make_file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return the file name of each of several tables; a hash distinguishes those that differ in marks or case alone."""
    stems = {name: make_file_stem(name) for name in names}
    shared = Counter(stem.casefold() for stem in stems.values())
    return {
        name: stem if shared[stem.casefold()] == 1 else f"{stem[:80]}-{_hash_name(name)}"
        for name, stem in stems.items()
    }


def _hash_name(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]


def _join_tex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _make_csv_cell(text: str, letter: str) -> str:
    if letter == "l":
        return text
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.replace("−", "-"))  # not the comma between numbers
    return "" if plain == "–" else plain


def _split_intervals(column: list[str]) -> list[list[str]]:
    """Return a column of numbers with intervals, title first, as two; any other column as it is."""
    title, *cells = column
    if not any(" ± " in cell for cell in cells) or not all(NUMBER_WITH_INTERVAL.fullmatch(cell) for cell in cells):
        return [column]
    numbers, _, half_widths = zip(*(cell.partition(" ± ") for cell in cells), strict=True)
    return [[title, *numbers], [f"{title} ±", *half_widths]]


def _make_tex_cell(text: str, letter: str) -> str:
    parts = [escape_latex(part) for part in text.split("; ")] if letter == "r" else []
    stacked = r"\begin{tabular}[t]{@{}r@{}}" + r"\\".join(parts) + r"\end{tabular}"
    return stacked if len(parts) > 1 else escape_latex(text)


def _align(cells: tuple[str, ...], widths: list[int], align: str) -> str:
    aligned = [
        shorten(cell, size).ljust(size) if letter == "l" else cell.rjust(size)
        for cell, size, letter in zip(cells, widths, align, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _escape_markdown(text: str) -> str:
    # Markdown allows HTML: "<" would open a tag and "&" an entity
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("\\", "\\\\").replace("|", "\\|")

"""The command line `python -m reports.build runs/<study>`: one self-contained report.html, and tables/ beside it.

The page opens from disk, loads nothing from anywhere, and runs only the two scripts its content-security policy
names by hash. Works on an unfinished study, and says so.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jinja2
from plotly.offline import get_plotlyjs

from reports import figures, headline, search_figures, search_results, tables
from reports.comparison import compare, frame
from reports.drawing import Drawn
from reports.exhibits import exhibitions
from reports.load import Cell, StudyRecords, load
from reports.pictures import galleries
from reports.render import Table, to_csv, to_markdown
from reports.settings import settings
from study.records import RecordsError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Search:
    """What the page shows of one searched cell."""

    table: Table
    front: Table | None
    wide: tuple[Drawn, ...]
    slices: tuple[Drawn, ...]
    schedules: tuple[Drawn, ...]


def build(folder: Path) -> Path:
    """Write `folder`/report.html and `folder`/tables/ from the study's records, and return the page's path.

    Raises RecordsError if `folder` is no study.
    """
    records = load(folder)
    write_tables(records)
    path = folder / "report.html"
    aside = folder / ".report.html.tmp"
    aside.write_text(page(records), encoding="utf-8")
    aside.replace(path)
    return path


def page(records: StudyRecords) -> str:
    """The report as HTML."""
    comparisons = compare(records)
    searches = [_search(records, cell) for cell in records.cells if cell.searched]
    curves = [drawn for student in records.students if (drawn := figures.curves(records, student))]
    compared = [(tables.comparison_table(c), figures.differences(c)) for c in comparisons]
    content: dict[str, Any] = {
        "records": records,
        "question": records.study.get("question"),
        "data_line": headline.data_line(records),
        "answers": [headline.answer(comparison) for comparison in comparisons],
        "checks": [line for c in comparisons if (line := headline.baseline_check(c))],
        "notices": dict.fromkeys(
            [*(line for c in comparisons if (line := headline.seeds_line(c))), *headline.missing(records)]
        ),
        "published_line": headline.published_line(records),
        "comparisons": compared,
        "curves": curves,
        "galleries": galleries(exhibitions(records)),
        "searches": searches,
        "drawn": bool(curves or any(s.wide for s in searches) or any(figure for _, figure in compared)),
        "planned": _planned(records),
        "budget": tables.budget_table(records),
        "readings": records.study.get("readings") or [],
        "settings": settings({key: part for key, part in records.part("study").items() if key != "readings"}),
        "provenance": tables.provenance_table(records),
        "source": records.part("space").get("source"),
        "source_name": records.part("space").get("path") or "source",
        "failures": tables.failures_table(records),
    }
    return _render(content)


def write_tables(records: StudyRecords) -> None:
    """tables/comparison.csv with unrounded numbers, and each table as CSV and Markdown."""
    folder = records.folder / "tables"
    folder.mkdir(exist_ok=True)
    comparisons = compare(records)
    frame(comparisons).to_csv(folder / "comparison.csv", index=False)
    written = "\n".join(to_markdown(tables.comparison_table(comparison)) for comparison in comparisons)
    (folder / "comparison.md").write_text(written, encoding="utf-8")
    searched = [
        table
        for cell in records.cells
        if cell.searched
        for table in (search_results.search_table(records, cell), search_results.pareto_table(records, cell))
        if table is not None
    ]
    for table in (*searched, tables.budget_table(records), tables.failures_table(records)):
        stem = file_stem(table.name)
        (folder / f"{stem}.csv").write_text(to_csv(table), encoding="utf-8")
        (folder / f"{stem}.md").write_text(to_markdown(table), encoding="utf-8")


def file_stem(name: str) -> str:
    """A table's name as a file name on any system; what that cuts off is kept apart by a hash."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    return stem if len(stem) <= 80 else f"{stem[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _search(records: StudyRecords, cell: Cell) -> Search:
    drawn = search_figures.search_figures(records, cell)
    return Search(
        table=search_results.search_table(records, cell),
        front=search_results.pareto_table(records, cell),
        wide=tuple(one for one in drawn if not one.small),
        slices=tuple(one for one in drawn if one.name.startswith("slice")),
        schedules=tuple(one for one in drawn if one.name.startswith("schedule")),
    )


def _planned(records: StudyRecords) -> str:
    words = (
        ("trials", "trials per searched cell"),
        ("epochs", "epochs per trial"),
        ("seeds", "confirm seeds per cell"),
    )
    return ", ".join(f"{records.budget(name)} {word}" for name, word in words if records.budget(name))


def _render(content: dict[str, Any]) -> str:
    drawing = (HERE / "page.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html").render(
        **content, plotly=plotly, drawing=drawing, policy=_policy(plotly, drawing)
    )


def _policy(*scripts: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # Plotly styles its SVG by style attributes, which a policy allows altogether or not at all.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@click.command(epilog="Example: python -m reports.build runs/lp_cifar")
@click.argument("folders", nargs=-1, required=True, metavar="STUDY...", type=click.Path(path_type=Path))
def main(folders: tuple[Path, ...]) -> None:
    """Write report.html and tables/ of one or more studies, each a folder below runs/.

    An unfinished study is reported as far as it has come.
    """
    for folder in folders:
        try:
            print(build(folder))
        except (RecordsError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()

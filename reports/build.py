"""The command line `python -m reports.build runs/<study>`: one self-contained report.html, and tables/ beside it.

The page opens from disk, loads nothing from anywhere, and runs only the two scripts its content-security policy
names by hash. Works on an unfinished study, and says so.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jinja2
from plotly.offline import get_plotlyjs

from reports.analysis.comparison import Comparison, compare, to_dataframe
from reports.examples.images import galleries
from reports.examples.panels import exhibitions
from reports.figures import comparison as figures
from reports.figures import search as search_figures
from reports.figures.files import KINDS, write_images
from reports.figures.importance import too_few
from reports.figures.style import Drawn
from reports.figures.sweep import setting_figures
from reports.figures.timeline import timeline
from reports.format.settings import settings
from reports.format.table import Table, file_stem, to_csv, to_markdown, to_tex
from reports.load import Cell, StudyRecords, load
from reports.papers.tables import paper_tables
from reports.tables import comparison as tables
from reports.tables import search as search_results
from reports.tables.budget import budget_table
from reports.tables.costs import cost_figures, cost_table
from reports.tables.per_class import class_table
from reports.text import summary as headline
from study.errors import InputError
from study.records.paths import StudyPaths
from study.records.segments import RecordsError
from study.storage.locations import display_path
from study.storage.remote import locate_study, push_report

PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Search:
    """What the page shows of one searched cell."""

    table: Table
    front: Table | None
    wide: tuple[Drawn, ...]
    slices: tuple[Drawn, ...]
    schedules: tuple[Drawn, ...]
    note: str | None
    """Why a figure is missing."""


def build(folder: Path, images: str | None = None) -> Path:
    """Write `folder`/report.html and `folder`/tables/ from the study's records, and return the page's path.

    With `images`, svg or png, also `folder`/figures/. Raises RecordsError if `folder` is no study, and InputError if
    images cannot be drawn here.
    """
    records = load(folder)
    write_tables(records)
    content = contents(records)
    path = StudyPaths(folder).report
    aside = folder / ".report.html.tmp"
    aside.write_text(_render(content), encoding="utf-8")
    aside.replace(path)
    if images:
        write_images(content["drawn"], StudyPaths(folder).figures, images)
    return path


def contents(records: StudyRecords) -> dict[str, Any]:
    """What the page shows, by the names that page.html has for it."""
    comparisons = compare(records)
    searches = [_search(records, cell) for cell in records.cells if cell.searched]
    curves = [drawn for student in records.students if (drawn := figures.curves(records, student))]
    curves += [drawn for student in records.students if (drawn := figures.distances(records, student))]
    compared = [(tables.comparison_table(c), _beside(records, c)) for c in comparisons]
    ran, costs = timeline(records), cost_figures(records)
    every = [one for _, beside in compared for one in beside] + costs + curves + ([ran] if ran else [])
    every += [one for search in searches for one in (*search.wide, *search.slices, *search.schedules)]
    return {
        "records": records,
        "question": records.study.get("question"),
        "data_line": headline.data_line(records),
        "answers": headline.answers(comparisons),
        "checks": [line for c in comparisons if (line := headline.baseline_check(c))],
        "notices": dict.fromkeys(
            [*(line for c in comparisons if (line := headline.seeds_line(c))), *headline.missing(records)]
        ),
        "published_line": headline.published_line(records),
        "comparisons": compared,
        "papers": paper_tables(records),
        "classes": _class_tables(records),
        "nets": cost_table(records),
        "costs": costs,
        "curves": curves,
        "galleries": galleries(exhibitions(records)),
        "searches": searches,
        "timeline": ran,
        "drawn": every,
        "planned": _planned(records),
        "budget": budget_table(records),
        "assumptions": records.study.get("assumptions") or records.study.get("readings") or [],
        "settings": settings(
            {key: part for key, part in records.section("study").items() if key not in ("assumptions", "readings")}
        ),
        "provenance": tables.provenance_table(records),
        "source": records.section("space").get("source"),
        "source_name": records.section("space").get("path") or "source",
        "failures": tables.failures_table(records),
    }


def write_tables(records: StudyRecords) -> None:
    """tables/comparison.csv with unrounded numbers, and each table as CSV, Markdown and LaTeX."""
    folder = StudyPaths(records.folder).tables
    folder.mkdir(exist_ok=True)
    comparisons = compare(records)
    to_dataframe(comparisons).to_csv(folder / "comparison.csv", index=False)
    compared = [tables.comparison_table(comparison) for comparison in comparisons]
    (folder / "comparison.md").write_text("\n".join(map(to_markdown, compared)), encoding="utf-8")
    (folder / "comparison.tex").write_text("\n".join(map(to_tex, compared)), encoding="utf-8")
    searched = [
        table
        for cell in records.cells
        if cell.searched
        for table in (search_results.search_table(records, cell), search_results.pareto_table(records, cell))
        if table is not None
    ]
    nets = cost_table(records)
    whole = (
        *([nets] if nets else []),
        *paper_tables(records),
        *_class_tables(records),
        *searched,
        budget_table(records),
        tables.failures_table(records),
    )
    for table in whole:
        for ending, written in (("csv", to_csv), ("md", to_markdown), ("tex", to_tex)):
            (folder / f"{file_stem(table.name)}.{ending}").write_text(written(table), encoding="utf-8")


def _beside(records: StudyRecords, comparison: Comparison) -> list[Drawn]:
    """The figures of one student's comparison."""
    differences = figures.differences(comparison)
    return [*([differences] if differences else []), *setting_figures(records, comparison.student)]


def _search(records: StudyRecords, cell: Cell) -> Search:
    drawn = search_figures.search_figures(records, cell)
    return Search(
        table=search_results.search_table(records, cell),
        front=search_results.pareto_table(records, cell),
        wide=tuple(one for one in drawn if not one.small),
        slices=tuple(one for one in drawn if one.name.startswith("slice")),
        schedules=tuple(one for one in drawn if one.name.startswith("schedule")),
        note=too_few(records, cell),
    )


def _class_tables(records: StudyRecords) -> list[Table]:
    return [table for student in records.students if (table := class_table(records, student)) is not None]


def _planned(records: StudyRecords) -> str:
    words = (
        ("trials", "trials per searched cell"),
        ("epochs", "epochs per trial"),
        ("seeds", "confirm seeds per cell"),
    )
    return ", ".join(f"{records.budget(name)} {word}" for name, word in words if records.budget(name))


def _render(content: dict[str, Any]) -> str:
    drawing = (PAGE / "page.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(PAGE), undefined=jinja2.StrictUndefined
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
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", type=click.Path())
@click.option("--figures", "images", type=click.Choice(KINDS), help="Write every figure to figures/ as well.")
def main(studies: tuple[str, ...], images: str | None) -> None:
    """Write report.html and tables/ of one or more studies, each a folder below runs/, or s3://BUCKET/PREFIX/STUDY.

    An unfinished study is reported as far as it has come.
    """
    for study in studies:
        try:
            name, storage = locate_study(study, "")
            page = build(storage / name, images)
            push_report(storage / name)
            print(f"{display_path(page.parent)}/{page.name}")
        except (RecordsError, InputError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()

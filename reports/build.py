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

from reports.analysis.comparison import Comparison, compare_arms, to_dataframe
from reports.examples.images import galleries
from reports.examples.panels import exhibitions
from reports.figures import comparison as figures
from reports.figures import search as search_figures
from reports.figures.costs import draw_costs
from reports.figures.files import KINDS, write_images
from reports.figures.importance import too_few
from reports.figures.style import Drawn
from reports.figures.sweep import setting_figures
from reports.figures.timeline import timeline
from reports.format.settings import list_settings
from reports.format.table import Table, make_file_stem, to_csv, to_markdown, to_tex
from reports.load import Cell, StudyRecords, load_study
from reports.papers import tables as papers
from reports.tables import budget, comparison, costs, failures, per_class, provenance, search
from reports.text import summary as headline
from study.errors import InputError
from study.records.segments import RecordsError
from study.storage.locations import display_path
from study.storage.remote import locate_study, push_report

PAGE = Path(__file__).parent / "page"

TABLES = (costs, papers, per_class, search, budget, failures)
"""Modules whose tables are written to tables/; those of the comparison share a file."""


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
    records = load_study(folder)
    write_tables(records)
    content = contents(records)
    path = folder / "report.html"
    aside = folder / ".report.html.tmp"
    aside.write_text(_render(content), encoding="utf-8")
    aside.replace(path)
    if images:
        write_images(content["drawn"], folder / "figures", images)
    return path


def contents(records: StudyRecords) -> dict[str, Any]:
    """What the page shows, by the names that page.html has for it."""
    comparisons = compare_arms(records)
    searches = [_search(records, cell) for cell in records.cells if cell.searched]
    curves = [drawn for student in records.students if (drawn := figures.curves(records, student))]
    curves += [drawn for student in records.students if (drawn := figures.distances(records, student))]
    compared = [(comparison.make_comparison_table(c), _beside(records, c)) for c in comparisons]
    ran, cost_figures = timeline(records), draw_costs(records)
    every = [one for _, beside in compared for one in beside] + cost_figures + curves + ([ran] if ran else [])
    every += [one for found in searches for one in (*found.wide, *found.slices, *found.schedules)]
    return {
        "records": records,
        "question": records.study.get("question"),
        "data_line": headline.describe_data(records),
        "answers": headline.summarize_comparisons(comparisons),
        "checks": [line for c in comparisons if (line := headline.summarize_baselines(c))],
        "notices": dict.fromkeys(
            [
                *(line for c in comparisons if (line := headline.warn_of_few_seeds(c.seeds, c.comparisons))),
                *headline.list_problems(records),
            ]
        ),
        "published_line": headline.explain_unpublished(records),
        "comparisons": compared,
        "papers": papers.make_tables(records),
        "classes": per_class.make_tables(records),
        "nets": costs.make_tables(records),
        "costs": cost_figures,
        "curves": curves,
        "galleries": galleries(exhibitions(records)),
        "searches": searches,
        "timeline": ran,
        "drawn": every,
        "planned": _planned(records),
        "budget": budget.make_tables(records),
        "assumptions": records.study.get("assumptions") or records.study.get("readings") or [],
        "settings": list_settings(
            {key: part for key, part in records.section("study").items() if key not in ("assumptions", "readings")}
        ),
        "provenance": provenance.make_tables(records),
        "source": records.section("space").get("source"),
        "source_name": records.section("space").get("path") or "source",
        "failures": failures.make_tables(records),
    }


def write_tables(records: StudyRecords) -> None:
    """tables/comparison.csv with unrounded numbers, and each table as CSV, Markdown and LaTeX."""
    folder = records.folder / "tables"
    folder.mkdir(exist_ok=True)
    to_dataframe(compare_arms(records)).to_csv(folder / "comparison.csv", index=False)
    compared = comparison.make_tables(records)
    (folder / "comparison.md").write_text("\n".join(map(to_markdown, compared)), encoding="utf-8")
    (folder / "comparison.tex").write_text("\n".join(map(to_tex, compared)), encoding="utf-8")
    for table in (table for module in TABLES for table in module.make_tables(records)):
        for ending, written in (("csv", to_csv), ("md", to_markdown), ("tex", to_tex)):
            (folder / f"{make_file_stem(table.name)}.{ending}").write_text(written(table), encoding="utf-8")


def _beside(records: StudyRecords, compared: Comparison) -> list[Drawn]:
    """The figures of one student's comparison."""
    differences = figures.differences(compared)
    return [*([differences] if differences else []), *setting_figures(records, compared.student)]


def _search(records: StudyRecords, cell: Cell) -> Search:
    drawn = search_figures.search_figures(records, cell)
    return Search(
        table=search.make_search_table(records, cell),
        front=search.make_pareto_table(records, cell),
        wide=tuple(one for one in drawn if not one.small),
        slices=tuple(one for one in drawn if one.name.startswith("slice")),
        schedules=tuple(one for one in drawn if one.name.startswith("schedule")),
        note=too_few(records, cell),
    )


def _planned(records: StudyRecords) -> str:
    words = (
        ("trials", "trials per searched cell"),
        ("epochs", "epochs per trial"),
        ("seeds", "confirm seeds per cell"),
    )
    return ", ".join(f"{records.get_budget(name)} {word}" for name, word in words if records.get_budget(name))


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

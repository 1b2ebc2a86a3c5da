"""The command `python -m reports.build runs/<study>`: write a study's report.html, tables/ and figures/.

The page is self-contained, opens from disk and loads nothing. An unfinished study has a report too, which says what is
missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reports.analysis import comparison, costs, scores
from reports.contents import Tables, list_figures, make_sections, make_tables
from reports.figures.files import IMAGE_FORMATS, write_data, write_images
from reports.format.table import make_file_stems, to_csv, to_markdown, to_tex
from reports.load import StudyRecords, load_study
from reports.page.render import render_report, replace_file
from reports.page.sections import make_header
from study.errors import InputError
from study.records.parquet_table import RecordsError
from study.records.paths import FIGURES, StudyPaths
from study.storage.locations import display_path
from study.storage.remote import locate_study, push_report


def build(folder: Path, images: str | None = None) -> Path:
    """Write `folder`/report.html, tables/ and figures/ from the study's records, and return the page's path.

    figures/ holds the data of each figure as CSV and, with `images`, svg or png, its image. Raises RecordsError if
    `folder` is no study, and InputError if images cannot be drawn on this machine.
    """
    records = load_study(folder)
    sections = make_sections(records, write_tables(records))
    figures = list_figures(sections)
    page, stems = StudyPaths(folder).report, make_file_stems([one.title for one in figures])
    write_data(figures, StudyPaths(folder).figures, stems)
    data_links = {title: f"{FIGURES}/{stem}.csv" for title, stem in stems.items()}
    content = {"sections": sections, "figures": figures, "data_links": data_links}
    replace_file(page, render_report({**make_header(records), **content}))
    if images:
        write_images(figures, StudyPaths(folder).figures, images)
    return page


def write_tables(records: StudyRecords) -> Tables:
    """Write each table as CSV, Markdown and LaTeX, and comparison.csv, metrics.csv and nets.csv unrounded.

    Returns the tables. Tables that share a file have no CSV there: their columns differ.
    """
    folder, tables = StudyPaths(records.folder).tables, make_tables(records)
    folder.mkdir(exist_ok=True)
    stems = make_file_stems([table.name for entry, made in tables if not entry.file for table in made])
    for entry, made in tables:
        if entry.file:
            (folder / f"{entry.file}.md").write_text("\n".join(map(to_markdown, made)), encoding="utf-8")
            (folder / f"{entry.file}.tex").write_text("\n".join(map(to_tex, made)), encoding="utf-8")
            continue
        for table in made:
            for ending, convert in (("csv", to_csv), ("md", to_markdown), ("tex", to_tex)):
                (folder / f"{stems[table.name]}.{ending}").write_text(convert(table), encoding="utf-8")
    comparison.to_dataframe(comparison.compare_arms(records)).to_csv(folder / "comparison.csv", index=False)
    scores.to_dataframe(scores.list_scores(records)).to_csv(folder / "metrics.csv", index=False)
    if costs.are_measured(nets := costs.list_nets(records)):
        costs.to_dataframe(nets).to_csv(folder / "nets.csv", index=False)
    return tables


@click.command(epilog="Example: python -m reports.build runs/lp_cifar")
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", type=click.Path())
@click.option("--figures", "images", type=click.Choice(IMAGE_FORMATS), help="Also write each figure as an image.")
def main(studies: tuple[str, ...], images: str | None) -> None:
    """Write report.html, tables/ and figures/ of one or more studies, each a folder below runs/, or s3://BUCKET/PREFIX/STUDY.

    The report of an unfinished study shows what has been recorded so far.
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

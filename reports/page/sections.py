"""Sections of the page: one function per section, from the study's records to its blocks.

contents.py lists the sections in their order. A section without blocks is left out of the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reports.analysis.comparison import compare_arms
from reports.examples.images import make_galleries
from reports.examples.panels import load_exhibitions
from reports.figures.ablation import draw_path
from reports.figures.comparison import draw_curves, draw_differences, draw_distances
from reports.figures.costs import draw_costs
from reports.figures.importance import explain_missing_importance
from reports.figures.pareto import draw_tested_fronts
from reports.figures.population import draw_population
from reports.figures.search import draw_search
from reports.figures.sweep import draw_sweep
from reports.figures.timeline import draw_timeline
from reports.format.settings import list_settings
from reports.load import Cell, StudyRecords
from reports.page.blocks import (
    Block,
    BulletList,
    FigureGrid,
    FilteredTable,
    FoldedTable,
    Heading,
    Paragraph,
    SettingsList,
    SourceFile,
)
from reports.tables import budget, costs, provenance, trials
from reports.tables.comparison import make_comparison_table
from reports.tables.front import make_front_table
from reports.tables.population import make_chain_table
from reports.tables.search import make_pareto_table, make_search_table
from reports.text import summary
from reports.text.few_seeds import warn_of_few_seeds
from reports.text.sanity import list_warnings


def make_header(records: StudyRecords) -> dict[str, Any]:
    """Return what stands above the sections, by the names that page.html uses."""
    comparisons = compare_arms(records)
    seeds = [line for each in comparisons if (line := warn_of_few_seeds(each.seeds, each.tests))]
    return {
        "name": records.name,
        "finished": records.finished,
        "question": records.study.get("question"),
        "data_line": summary.describe_data(records),
        "answers": [
            *summary.summarize_comparisons(comparisons),
            *summary.summarize_points(comparisons),
            *summary.summarize_across_students(records),
        ],
        "checks": [line for comparison in comparisons if (line := summary.summarize_baselines(comparison))],
        "warnings": list_warnings(records),
        "notices": list(dict.fromkeys([*seeds, *summary.list_problems(records)])),
    }


def show_comparison(records: StudyRecords) -> Iterator[Block]:
    """Each student's arms: their table, the paired differences, and a setting that the arms sweep."""
    if line := summary.explain_unpublished(records):
        yield Paragraph(line)
    for comparison in compare_arms(records):
        table = make_comparison_table(comparison)
        yield Heading(table.caption)
        yield table
        if figure := draw_differences(comparison):
            yield figure
        if comparison.points:
            front = make_front_table(records, comparison)
            yield Heading(front.caption)
            yield front
            yield from draw_tested_fronts(records, comparison)
        if path := draw_path(records, comparison.student):
            yield path
        yield from draw_sweep(records, comparison.student)


def show_nets(records: StudyRecords) -> Iterator[Block]:
    """The size and speed of each net, and test scores against them."""
    tables = costs.make_tables(records)
    yield from tables
    if tables:
        yield from _grid(
            "Test scores against cost",
            "Means over seeds with their 95 % intervals, for every arm. The dotted line joins the nets that no other "
            "beats at the same or a lower cost. It is drawn from test scores and selects nothing.",
            draw_costs(records),
        )


def show_curves(records: StudyRecords) -> Iterator[Block]:
    """Learning curves of all students, then their distances to the teacher."""
    for student in records.students:
        if figure := draw_curves(records, student):
            yield figure
    for student in records.students:
        yield from draw_distances(records, student)


def show_examples(records: StudyRecords) -> Iterator[Block]:
    """Test samples as the teacher and each arm's student see them."""
    galleries = make_galleries(load_exhibitions(records))
    if galleries:
        yield Paragraph(
            "Samples at even distances in the test split, with the outputs of the teacher and of the first confirm run "
            "of each arm after the last epoch. They illustrate the scores and select nothing. The data set's licence "
            "covers them too."
        )
    for gallery in galleries:
        yield Heading(gallery.student)
        yield gallery


def show_search(records: StudyRecords) -> Iterator[Block]:
    """The search of each searched cell."""
    searched = [cell for cell in records.cells if cell.searched]
    if searched:
        yield Paragraph("Trials were scored on validation data only; the test split was not read.")
    for cell in searched:
        yield from (_show_population if cell.population else _show_cell_search)(records, cell)


def show_trials(records: StudyRecords) -> Iterator[Block]:
    """All search and confirm trials, to be filtered."""
    table = trials.make_trial_table(records)
    if table.rows:
        yield Paragraph("All search and confirm trials. trials/ has them with further columns, as parquet.")
        yield FilteredTable(table, filters=("student", "arm", "phase", "state"))


def show_budget(records: StudyRecords) -> Iterator[Block]:
    """Show the plan, the time each cell took, and when trials ran."""
    words = (
        ("trials", "trials per searched cell"),
        ("epochs", "epochs per trial"),
        ("seeds", "confirm seeds per cell"),
    )
    planned = ", ".join(f"{records.get_budget(name)} {word}" for name, word in words if records.get_budget(name))
    yield Paragraph((f"Planned: {planned}. " if planned else "") + "Times are summed over trials that ran in parallel.")
    yield from budget.make_tables(records)
    if figure := draw_timeline(records):
        yield figure


def show_settings(records: StudyRecords) -> Iterator[Block]:
    """The study as its space file declares it, and its assumptions about what the papers leave open."""
    described = records.section("study")
    listed = list_settings({key: part for key, part in described.items() if key not in ("assumptions", "readings")})
    yield SettingsList(listed) if listed else Paragraph("study.json does not describe the study.")
    if assumptions := records.study.get("assumptions") or records.study.get("readings"):
        yield Heading("Assumptions")
        yield Paragraph("How this study resolves what its papers leave open.", note=True)
        yield BulletList(tuple(assumptions))


def show_provenance(records: StudyRecords) -> Iterator[Block]:
    """Commands, versions and machines that the numbers come from, and how to cite them."""
    first, *others = provenance.make_tables(records)
    yield first
    yield from map(FoldedTable, others)
    yield SourceFile("Cite this study", provenance.make_citation(records))


def show_space_file(records: StudyRecords) -> Iterator[Block]:
    """The space file's source."""
    space = records.section("space")
    if space.get("source"):
        yield SourceFile(str(space.get("path") or "source"), str(space["source"]))


def show_failures(records: StudyRecords) -> Iterator[Block]:
    """Failed trials with their reasons."""
    tables = [table for table in trials.make_tables(records) if table.rows]
    yield from tables
    if not tables:
        yield Paragraph("No trial has failed.")


def _show_population(records: StudyRecords, cell: Cell) -> Iterator[Block]:
    table, figures = make_chain_table(records, cell), draw_population(records, cell)
    yield Heading(table.caption)
    yield table
    yield from (figure for figure in figures if not figure.small)
    yield from _grid(
        "Schedules found",
        "Solid: the best chain's values. Dashed: the published settings, by the first points of the space file's arms. "
        "Dotted: schedules of the same name in other arms' confirm runs.",
        [figure for figure in figures if figure.small],
    )


def _show_cell_search(records: StudyRecords, cell: Cell) -> Iterator[Block]:
    table, figures = make_search_table(records, cell), draw_search(records, cell)
    yield Heading(table.caption)
    yield table
    if front := make_pareto_table(records, cell):
        yield front
    yield from (figure for figure in figures if not figure.small)
    if reason := explain_missing_importance(records, cell):
        yield Paragraph(reason, note=True)
    yield from _grid(
        "Score over pairs of searched settings",
        "Colour: the mean score of the complete trials nearby, blank where there are none. Dots: trials; open ones were"
        " stopped early and do not count. Other settings vary too. Pairs of the most important settings, by the figure "
        "above where there is one.",
        [figure for figure in figures if figure.name.startswith("contour")],
    )
    yield from _grid(
        "Score against each searched setting",
        "Filled: complete. Open: stopped early, scored after fewer epochs. Of more than 500 trials, a sample.",
        [figure for figure in figures if figure.name.startswith("slice")],
    )
    yield from _grid(
        "Schedules that were tried",
        "Dashed: the published settings, which the search tries first, where the space file names them. Grey: up to 40 "
        "other trials of this search.",
        [figure for figure in figures if figure.name.startswith("schedule")],
    )


def _grid(title: str, caption: str, figures: list[Any]) -> Iterator[Block]:
    if figures:
        yield FigureGrid(title, caption, tuple(figures))

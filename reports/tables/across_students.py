"""The tables of comparisons that reach over students: arms over all students, and nets against nets."""

from __future__ import annotations

from reports.analysis.across_students import NetContrast, compare_nets, pool_students
from reports.analysis.comparison import Comparison
from reports.analysis.verdicts import Contrast
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.load import StudyRecords
from reports.tables.comparison import make_contrast_cells


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of all students, if two of them share arms, and that of nets, if any are compared."""
    pooled, nets = pool_students(records), compare_nets(records)
    return ([_make_pooled_table(pooled)] if pooled else []) + ([_make_net_table(nets)] if nets else [])


def _make_pooled_table(pooled: Comparison) -> Table:
    return Table(
        name="all-students",
        caption=f"All students together: differences in {pooled.metric.words}",
        columns=("arm", "pairs", "compared with", pooled.metric.title_difference(), "p", "verdict", "seeds needed"),
        align="lrlrrlr",
        rows=tuple(_make_row(contrast.arm, contrast, pooled.metric) for contrast in pooled.contrasts),
        kinds=tuple("baseline" if contrast.baseline else "" for contrast in pooled.contrasts),
        notes=(
            "The difference is the mean of the students' mean differences; pairs share student and seed. p is of the "
            f"test of the tables above on all pairs, Holm-corrected over this table's {pooled.tests} tests. Seeds "
            "needed: pairs over all students.",
        ),
    )


def _make_net_table(nets: tuple[NetContrast, ...]) -> Table:
    return Table(
        name="nets-against-nets",
        caption="Nets against nets",
        columns=("net / arm", "pairs", "metric", "compared with", "difference", "p", "verdict", "seeds needed"),
        align="lrllrrlr",
        rows=tuple(_make_net_row(one) for one in nets),
        kinds=("",) * len(nets),
        notes=(
            "These compare nets, not methods: they differ in architecture, size and loss, and share seeds, data and "
            f"data order. p is Holm-corrected over this table's {len(nets)} comparisons.",
        ),
    )


def _make_row(label: str, contrast: Contrast, metric: Metric) -> tuple[str, ...]:
    pairs = contrast.paired.n if contrast.paired else 0
    return (label, str(pairs), *make_contrast_cells(metric, contrast))


def _make_net_row(one: NetContrast) -> tuple[str, ...]:
    label, pairs, *cells = _make_row(one.contrast.arm, one.contrast, one.metric)
    return (label, pairs, one.metric.title_difference(one.metric.noun), *cells)

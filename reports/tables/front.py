"""The table of fronts as measured on test: each confirmed point with its cost, and its comparison at equal student."""

from __future__ import annotations

from reports.analysis.comparison import Comparison, compare_arms
from reports.analysis.front import list_cost_columns
from reports.analysis.search import list_objectives
from reports.format.table import Table
from reports.format.values import format_params
from reports.load import StudyRecords
from reports.tables.comparison import make_contrast_cells
from reports.text.results import format_mean

NOTHING = ["–"] * 5


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of each student of which an arm confirms several points."""
    return [make_front_table(records, one) for one in compare_arms(records) if one.points]


def make_front_table(records: StudyRecords, comparison: Comparison) -> Table:
    """Return the points of each arm by increasing cost, with a row for each arm that a point is compared with."""
    metric = comparison.metric
    costs = [records.get_metric(name) for name in list_objectives(records)[1:] if name in list_cost_columns(records)]
    points = sorted(
        comparison.points, key=lambda one: (one.position, *(one.costs.get(cost.name, 0.0) for cost in costs), one.point)
    )
    rows, kinds = [], []
    for point in points:
        scores = (str(point.mean.n), format_mean(metric, point.mean), metric.format(point.std))
        priced = (cost.format(point.costs.get(cost.name)) for cost in costs)
        head = (point.cell.arm, str(point.point), *priced, *scores)
        compared = [make_contrast_cells(metric, contrast) for contrast in point.contrasts] or [NOTHING]
        rows.append((*head, *compared[0], format_params(point.params)))
        rows += [("",) * len(head) + (*cells, "") for cells in compared[1:]]
        kinds += ["" if point.is_own else "reference"] * len(compared)
    tests = comparison.tests
    return Table(
        name=f"front-{comparison.student}",
        caption=f"{comparison.student}: the fronts on test",
        columns=(
            *("arm", "point", *(cost.label for cost in costs), "n", metric.label, metric.title_difference("std")),
            *("compared with", metric.title_difference(), "p", "verdict", "seeds needed", "settings"),
        ),
        align="lr" + "r" * len(costs) + "rrr" + "lrrlr" + "l",
        rows=tuple(rows),
        kinds=tuple(kinds),
        notes=(
            "Of each search, the best point by validation and those of its front that are farthest from it in cost, at "
            f"most {max(point.cell.front for point in points)}, trained again with the seeds of all arms. Grey: the "
            "student of another arm's point, trained for the comparison by the settings of this arm's trial of that "
            "student or, if there is none, of its point nearest in cost. A point is compared with the same student "
            "under the other arm, by seed; the best points of two arms that have the same student, in the table of "
            f"arms. ± and p as there, Holm-corrected over the {tests} comparison{'s' * (tests != 1)} of both tables.",
        ),
    )

"""The table of a student's arms, with each arm's difference to the one it is compared with.

reports/analysis/comparison.py does the arithmetic; tables/comparison.csv has the numbers unrounded.
"""

from __future__ import annotations

from collections.abc import Iterator

from reports.analysis import power
from reports.analysis.comparison import ArmResult, Comparison, Reference, compare_arms
from reports.analysis.published import Published
from reports.analysis.sign_tests import MAX_EXACT_PAIRS
from reports.analysis.verdicts import Contrast, count_tests, format_verdict
from reports.format.metrics import Metric
from reports.format.table import Table
from reports.format.values import format_whole, join_words
from reports.load import StudyRecords
from reports.text.results import format_difference, format_mean, format_p
from reports.text.summary import list_code_notes


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the comparison table of each student."""
    return [make_comparison_table(comparison) for comparison in compare_arms(records)]


def make_comparison_table(comparison: Comparison) -> Table:
    """Return one student's arms, the teacher first as a reference; columns that no row fills are left out.

    An arm with several comparisons has a row for each, of which only the first repeats its name and mean.
    """
    metric, rows, teacher = comparison.metric, comparison.rows, comparison.teacher
    columns = (
        ("arm", "l", True),
        ("parameters", "r", any(row.parameters for row in rows)),
        ("n", "r", True),
        (metric.label, "r", True),
        ("at best validation epoch", "r", any(row.at_best_val for row in rows)),
        ("compared with", "l", True),
        (metric.title_difference(), "r", True),
        ("p", "r", True),
        ("verdict", "l", True),
        ("seeds needed", "r", True),
        ("published", "r", bool(teacher and teacher.published) or any(row.published for row in rows)),
    )
    body = [_list_teacher_cells(comparison, teacher)] if teacher else []
    kinds = ["reference"] * bool(teacher)
    for row in rows:
        first, *further = [make_contrast_cells(metric, contrast) for contrast in row.contrasts] or [["–"] * 5]
        body.append(_list_arm_cells(comparison, row, first))
        body += [["", "", "", "", "", *cells, ""] for cells in further]
        kinds += ["baseline" if row.baseline else ""] * (1 + len(further))
    parameters = f" ({comparison.parameters:,} parameters)" if comparison.parameters else ""
    filled = [index for index, (_, _, is_filled) in enumerate(columns) if is_filled]
    return Table(
        name=f"comparison-{comparison.student}",
        caption=f"{comparison.student}{parameters}: {metric.label}",
        columns=tuple(columns[index][0] for index in filled),
        align="".join(columns[index][1] for index in filled),
        rows=tuple(tuple(cells[index] for index in filled) for cells in body),
        kinds=tuple(kinds),
        notes=tuple(_make_notes(comparison)),
    )


def _list_teacher_cells(comparison: Comparison, teacher: Reference) -> list[str]:
    size, measured = format_whole(teacher.parameters), comparison.metric.format(teacher.value)
    figure = _format_published(comparison, teacher.published)
    return [f"teacher: {teacher.name}", size, "1", measured, "–", "–", "–", "–", "–", "–", figure]


def _list_arm_cells(comparison: Comparison, row: ArmResult, contrast: list[str]) -> list[str]:
    last, best = row.mean, row.at_best_val
    # with its number of runs, if not all have recorded one
    partial = f" (n = {best.n})" if best and (last is None or best.n != last.n) else ""
    means = [format_mean(comparison.metric, last), format_mean(comparison.metric, best) + partial]
    size, figure = format_whole(row.parameters), _format_published(comparison, row.published)
    return [row.arm, size, str(last.n if last else 0), *means, *contrast, figure]


def make_contrast_cells(metric: Metric, contrast: Contrast) -> list[str]:
    """Return the arm it is compared with, difference, p, verdict and seeds needed."""
    paired, verdict = contrast.paired, format_verdict(contrast) or "–"
    difference = format_difference(metric, paired.difference, paired.interval) if paired else "–"
    # the p of the test that the verdict rests on
    p = contrast.margin_p if contrast.verdict == "not worse" else contrast.p
    return [contrast.versus, difference, format_p(p), verdict, _format_seeds_needed(contrast)]


def _format_seeds_needed(contrast: Contrast) -> str:
    paired = contrast.paired
    if contrast.verdict != "undecided" or paired is None or paired.n < 2 or paired.alike:
        return "–"
    return str(contrast.seeds_needed) if contrast.seeds_needed else f"> {power.MAX_SEEDS}"


def _format_published(comparison: Comparison, figure: Published | None) -> str:
    if figure is None:
        return "–"
    return comparison.metric.format_signed(figure.value) if figure.versus else comparison.metric.format(figure.value)


def _make_notes(comparison: Comparison) -> list[str]:
    teacher, compared = comparison.teacher, comparison.contrasts
    sources = [("teacher", teacher.published)] if teacher else []
    sources += [(row.arm, row.published) for row in comparison.rows] if compared else []
    published = [_describe_source(name, figure) for name, figure in sources if figure]
    test = f" {_describe_test(comparison)}" if compared else ""
    return [
        f"± is a 95 % t interval.{test}",
        *_list_caveats(compared, bool(comparison.points)),
        *list_code_notes(comparison),
        *published,
    ]


def _describe_test(comparison: Comparison) -> str:
    m = len(comparison.contrasts)
    exact = f"sign-flip test, exact up to {MAX_EXACT_PAIRS} seeds"
    test = "sign test" if any(contrast.test == "sign" for contrast in comparison.contrasts) else exact
    return (
        "[ ] is a 95 % BCa bootstrap interval of the paired differences; at few seeds it is too narrow (it covers 84 % "
        f"at 5, 88 % at 8, 92 % at 20), and no verdict rests on it. p is the two-sided {test}, Holm-corrected over "
        f"this table's {m} comparison{'s' * (m != 1)}{_describe_margins(comparison)}{_describe_points(comparison)}; "
        "better and worse mean p ≤ 0.05. Seeds needed: for 80 % power if the true difference is the one seen."
    )


def _list_caveats(contrasts: tuple[Contrast, ...], has_fronts: bool) -> Iterator[str]:
    """Yield what stands against taking some verdicts at face value."""
    if alone := dict.fromkeys(contrast.arm for contrast in contrasts if contrast.tuning_alone):
        yield (
            f"Compared only with arms that were not searched alike: {join_words(list(alone))}. A gain may come from "
            "tuning alone."
        )
    if apart := [f"{one.arm} and {one.versus}" for one in contrasts if one.recipes_differ]:
        yield f"Trained by different recipes: {join_words(apart)}. Their differences are of recipe and method together."
    if unlike := [f"{one.arm} and {one.versus}" for one in contrasts if one.students_differ]:
        yield (
            f"Chose different students: {join_words(unlike)}. Their differences are of student and method together"
            f"{'; the table of the fronts compares equal students' * has_fronts}."
        )
    if skewed := [f"{one.arm} against {one.versus}" for one in contrasts if one.relies_on_symmetry]:
        yield (
            f"The differences of {join_words(skewed)} are skewed. The sign-flip test assumes symmetric ones, and "
            'decides wrongly in up to 19 % of studies without; Study(test="sign") asks which arm is better on most '
            "seeds, and holds its level for any differences."
        )


def _describe_margins(comparison: Comparison) -> str:
    """Return which arms may be worse by how much, to be appended to the number of comparisons; "" without margins."""
    metric = comparison.metric
    margins = {one.arm: metric.format(one.margin) for one in comparison.contrasts if one.margin is not None}
    if not margins:
        return ""
    named = join_words([f"{arm} by less than {margin}{metric.after_difference}" for arm, margin in margins.items()])
    tests = count_tests(comparison.contrasts) - len(comparison.contrasts)
    return (
        f" and {tests} margin{'s' * (tests != 1)}; not worse ({named}) means that the one-sided test of the same "
        "correction has p ≤ 0.05"
    )


def _describe_points(comparison: Comparison) -> str:
    """Return how many comparisons of points of fronts share the correction; "" without any."""
    number = comparison.tests - count_tests(comparison.contrasts)
    return f" and {number} of points of fronts, in their own table" if number else ""


def _describe_source(name: str, figure: Published) -> str:
    kind = f"difference to {figure.versus}" if figure.versus else "value"
    extras = "; ".join(part for part in (figure.setting, figure.epoch, figure.note) if part)
    return f"{name}: {kind} published in {figure.paper} ({extras})."

"""The table of all test metrics of each student's arms, for tasks that measure several."""

from __future__ import annotations

from reports.analysis.scores import Score, list_scores
from reports.format.metrics import CLASS_PREFIX
from reports.format.table import Table
from reports.load import StudyRecords
from reports.text.results import format_mean


def make_tables(records: StudyRecords) -> list[Table]:
    """Return a table per student, the teacher first; none where a single metric is measured.

    Scores of single classes have a table of their own.
    """
    scores = [score for score in list_scores(records) if not score.metric.bare.startswith(CLASS_PREFIX)]
    tables = [
        _make_table(student, [one for one in scores if one.student in ("", student)]) for student in records.students
    ]
    return [table for table in tables if len(table.columns) > 2]


def _make_table(student: str, scores: list[Score]) -> Table:
    metrics = dict.fromkeys(score.metric for score in scores if score.student)
    means = {(score.arm, score.metric): score.mean for score in scores}
    arms = dict.fromkeys(score.arm for score in scores)
    return Table(
        name=f"metrics-{student}",
        caption=f"{student}: all test metrics",
        columns=("arm", *(metric.label for metric in metrics)),
        align="l" + "r" * len(metrics),
        rows=tuple((arm, *(format_mean(metric, means.get((arm, metric))) for metric in metrics)) for arm in arms),
        kinds=tuple("reference" if arm.startswith("teacher: ") else "" for arm in arms),
        notes=("± is a 95 % t interval over the confirm seeds. Only the metric of the comparison is tested.",),
    )
